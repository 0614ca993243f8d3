//! The native module `flexq._flexq`: conversion between numpy and `flexq-core`, no arithmetic.

use pyo3::pymodule;

#[pymodule]
mod _flexq {}
