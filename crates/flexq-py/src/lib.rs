//! The native module `flexq._flexq`: conversion between numpy and `flexq-core`, no arithmetic.

#![allow(clippy::doc_markdown, reason = "the documentation of classes and functions is read in Python")]
#![allow(clippy::needless_pass_by_value, reason = "arguments are converted from Python and owned")]
#![allow(clippy::fn_params_excessive_bools, clippy::too_many_arguments, reason = "keywords in Python")]

mod array;
mod cuda;
mod cuda_tensor;
mod error;
mod io;
mod matmul;
mod openmp;
mod options;
mod pipeline;
mod quantize;
mod raw;
mod tensor;

use pyo3::prelude::*;

/// Runs `flexq-pack` with these arguments, the program name first; returns its exit code.
#[pyfunction]
fn run_cli(py: Python<'_>, arguments: Vec<String>) -> u8 {
    py.detach(|| flexq_cli::run(&arguments))
}

#[pymodule]
mod _flexq {
    use super::{Bound, PyModule, PyResult};

    #[pymodule_init]
    #[expect(clippy::unnecessary_wraps, reason = "its type in pyo3")]
    fn init(_: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::openmp::load();
        Ok(())
    }

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "its name in Python")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    use super::run_cli;
    #[pymodule_export]
    use crate::cuda::{
        CudaError, cuda_choice, cuda_dequantize, cuda_embedding, cuda_exact_sums, cuda_grouped_linear,
        cuda_info, cuda_linear, cuda_repack, cuda_restore, cuda_sizes, cuda_trigger_late, cuda_workspace,
    };
    #[pymodule_export]
    use crate::cuda_tensor::CudaTensor;
    #[pymodule_export]
    use crate::error::{FormatError, NonFiniteError};
    #[pymodule_export]
    use crate::io::{Reader, save_file};
    #[pymodule_export]
    use crate::matmul::{embedding, matmul};
    #[pymodule_export]
    use crate::pipeline::{export, import_, inspect_checkpoint, pack, plan, seal, unpack, verify_checkpoint};
    #[pymodule_export]
    use crate::quantize::quantize;
    #[pymodule_export]
    use crate::raw::{cpu_dequantize, cpu_embedding, cpu_linear, cpu_quantize, select};
    #[pymodule_export]
    use crate::tensor::PyQTensor;
}
