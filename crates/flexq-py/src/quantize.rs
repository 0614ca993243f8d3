//! `flexq.quantize`.

use flexq_core::Scheme;
use numpy::PyUntypedArray;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::array::Floats;
use crate::error::PyError;
use crate::options::{Dtype, GroupSize, ScaleDtype, ThreadCount};
use crate::tensor::PyQTensor;

/// Quantizes a weight `[N, K]`, or a stack of experts `[E, N, K]`, to 6 bits.
///
/// Args:
///     w: float32, float16 or bfloat16 (of `ml_dtypes`, or its bits as uint16 together
///         with `dtype="bfloat16"`); finite.
///     group_size: columns per scale: 32, 64, 128, 256 or "row".
///     rule: how scales are found: "absmax31", "absmax32s" or "mse".
///     scale_dtype: how scales are stored: "float16", "bfloat16", or "pair", which has one
///         for each half of a group of 32, 64 or 128 in the same 16 bits.
///     dtype: what the elements of `w` are, where its own dtype does not say.
///     threads: how many may work; all of the machine by default. The result is the same.
///
/// Raises:
///     NonFiniteError: `w` holds a NaN or an infinity.
///     ValueError: a wrong shape, dtype or option, or a scale too large for float16.
#[pyfunction]
#[pyo3(signature = (w, group_size=GroupSize::DEFAULT, *, rule="absmax32s", scale_dtype=ScaleDtype::F16, dtype=None, threads=None), text_signature = "(w, group_size=128, *, rule='absmax32s', scale_dtype='float16', dtype=None, threads=None)")]
pub fn quantize(
    py: Python<'_>,
    w: &Bound<'_, PyUntypedArray>,
    group_size: GroupSize,
    rule: &str,
    scale_dtype: ScaleDtype,
    dtype: Option<Dtype>,
    threads: Option<ThreadCount>,
) -> PyResult<PyQTensor> {
    let scheme =
        Scheme { group: group_size.0, rule: rule.parse().map_err(PyError::from)?, scale_type: scale_dtype.0 };
    let w = Floats::new(w, dtype.map(|dtype| dtype.0))?;
    if !matches!(w.shape().len(), 2 | 3) {
        return Err(PyValueError::new_err(format!(
            "weight: expected 2 or 3 dimensions, found {} (shape {:?})",
            w.shape().len(),
            w.shape()
        )));
    }
    let (rows, shape, threads) = (w.rows()?, w.shape(), ThreadCount::resolve(threads));
    let tensor = py.detach(|| flexq_core::quantize(&rows, shape, &scheme, threads));
    Ok(PyQTensor(tensor.map_err(PyError::from)?))
}
