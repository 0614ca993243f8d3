//! The native module `flexq._flexq`: conversion between numpy and `flexq-core`, no arithmetic.

mod array;
mod error;
mod options;
mod tensor;

use pyo3::prelude::*;

/// Runs `flexq-pack` with these arguments, the program name first; returns its exit code.
#[pyfunction]
fn run_cli(py: Python<'_>, arguments: Vec<String>) -> u8 {
    py.detach(|| flexq_cli::run(&arguments))
}

#[pymodule]
mod _flexq {
    #[pymodule_export]
    use super::run_cli;
    #[pymodule_export]
    use crate::error::{FormatError, NonFiniteError};
    #[pymodule_export]
    use crate::tensor::PyQTensor;
}
