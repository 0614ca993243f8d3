//! `flexq.matmul` and `flexq.embedding`.

use flexq_core::{ActivationBits, ActivationGroup, Error, FloatRowsMut, Group, MatmulOptions};
use numpy::{PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::Borrowed;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::array::{Floats, FloatsMut};
use crate::cuda_tensor::{CudaTensor, ordinal};
use crate::error::PyError;
use crate::options::{Dtype, GroupSize, ThreadCount};
use crate::tensor::PyQTensor;

/// Multiplies with a packed weight: `x [..., K]` times the transpose of `q [N, K]` is `[..., N]`.
///
/// Args:
///     x: float32, float16 or bfloat16; any number of leading dimensions.
///     q: a matrix; on a GPU already (`q.to("cuda")`) or copied there for this product.
///     act_bits: 16 multiplies `x` as it is; 8 and 6 quantize it first and multiply integers.
///     act_group: columns of `x` per scale where it is quantized: 128 or "row".
///     out: a writable C-contiguous array for the result.
///     out_dtype: type of the result; that of `x` by default.
///     dtype: what the elements of `x` are, where its own dtype does not say.
///     threads: how many may work; all of the machine by default. The result is the same.
///     device: "cpu", "cuda" or "cuda:1"; where `q` is by default, and nowhere else if that is a
///         GPU. A GPU takes float16 and bfloat16.
///     kernel: on a GPU, the kernel to use instead of the one that flexq would choose, for
///         experiments: "small", "streamed", "teams", "planes" (bit planes), "tile" or
///         "hopper", and options such as "small splits=2".
///
/// Raises:
///     ValueError: shapes that do not fit, a wrong dtype or option, a kernel that cannot compute
///         this product.
///     CudaError: a GPU was asked for and cannot be used.
#[pyfunction]
#[pyo3(signature = (x, q, *, act_bits=16, act_group=GroupSize::DEFAULT, out=None, out_dtype=None, dtype=None, threads=None, device=None, kernel=None), text_signature = "(x, q, *, act_bits=16, act_group=128, out=None, out_dtype=None, dtype=None, threads=None, device=None, kernel=None)")]
pub fn matmul<'py>(
    py: Python<'py>,
    x: &Bound<'py, PyUntypedArray>,
    q: Weight<'py>,
    act_bits: u8,
    act_group: GroupSize,
    out: Option<&Bound<'py, PyUntypedArray>>,
    out_dtype: Option<Dtype>,
    dtype: Option<Dtype>,
    threads: Option<ThreadCount>,
    device: Option<&str>,
    kernel: Option<&str>,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let q = match (q, device) {
        (Weight::Gpu(q), device) => {
            require_place(device, &q.get().device())?;
            let (x, per_row) = (Floats::new(x, dtype.map(|dtype| dtype.0))?, is_row(act_group)?);
            return q.get().matmul(py, &x, act_bits, per_row, out, out_dtype.map(|dtype| dtype.0), kernel);
        }
        (Weight::Cpu(q), None | Some("cpu")) => q,
        (Weight::Cpu(q), Some(device)) => {
            let (x, per_row) = (Floats::new(x, dtype.map(|dtype| dtype.0))?, is_row(act_group)?);
            let q = CudaTensor::new(&q.get().0, ordinal(device)?)?;
            return q.matmul(py, &x, act_bits, per_row, out, out_dtype.map(|dtype| dtype.0), kernel);
        }
    };
    if kernel.is_some() {
        return Err(PyValueError::new_err("kernel: only products on a GPU have a choice"));
    }
    let options = MatmulOptions {
        bits: activation_bits(act_bits)?,
        group: activation_group(act_group)?,
        threads: ThreadCount::resolve(threads),
    };
    let x = Floats::new(x, dtype.map(|dtype| dtype.0))?;
    let w = &q.get().0;
    let Some((_, leading)) = x.shape().split_last() else {
        return Err(PyValueError::new_err("x has no dimension: expected [..., K]"));
    };
    let n = w.shape()[0];
    let mut shape = leading.to_vec();
    shape.push(n);
    let mut y = FloatsMut::take_or_new(py, out, out_dtype.map(|dtype| dtype.0), x.dtype(), &shape)?;
    if y.overlaps(x.bytes()) {
        return Err(PyValueError::new_err("out shares memory with x"));
    }
    let (x_rows, y_type) = (x.rows()?, y.dtype());
    let y_bytes = y.bytes_mut();
    py.detach(|| {
        let mut y = FloatRowsMut::new(y_bytes, y_type, x_rows.rows(), n)?;
        flexq_core::matmul(&x_rows, w, &options, &mut y)
    })
    .map_err(PyError::from)?;
    Ok(y.into_array())
}

/// A weight, wherever it is.
pub enum Weight<'py> {
    /// In memory.
    Cpu(Bound<'py, PyQTensor>),
    /// On a GPU.
    Gpu(Bound<'py, CudaTensor>),
}

impl<'py> FromPyObject<'_, 'py> for Weight<'py> {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(q) = value.cast::<PyQTensor>() {
            Ok(Self::Cpu(q.to_owned()))
        } else if let Ok(q) = value.cast::<CudaTensor>() {
            Ok(Self::Gpu(q.to_owned()))
        } else {
            Err(PyTypeError::new_err(format!(
                "q: expected a QTensor (flexq.quantize(w) makes one) or a CudaTensor, found {}",
                value.get_type().name()?
            )))
        }
    }
}

/// A weight on a GPU is multiplied there: another device is an error.
fn require_place(asked: Option<&str>, at: &str) -> PyResult<()> {
    match asked {
        None | Some("cuda") => Ok(()),
        Some(asked) if asked == at => Ok(()),
        Some(asked) => Err(PyValueError::new_err(format!("device: asked for {asked}, but q is on {at}"))),
    }
}

fn is_row(group: GroupSize) -> PyResult<bool> {
    Ok(activation_group(group)? == ActivationGroup::Row)
}

fn activation_bits(bits: u8) -> PyResult<ActivationBits> {
    match bits {
        16 => Ok(ActivationBits::A16),
        8 => Ok(ActivationBits::A8),
        6 => Ok(ActivationBits::A6),
        _ => Err(PyValueError::new_err(format!("act_bits: expected 16, 8 or 6, found {bits}"))),
    }
}

fn activation_group(group: GroupSize) -> PyResult<ActivationGroup> {
    match group.0 {
        Group::Columns(128) => Ok(ActivationGroup::Columns),
        Group::Row => Ok(ActivationGroup::Row),
        Group::Columns(columns) => {
            Err(PyValueError::new_err(format!("act_group: expected 128 or \"row\", found {columns}")))
        }
    }
}

/// Looks up rows: `ids [...]` of any integer type in `q [N, K]` gives `[..., K]`.
///
/// Raises:
///     IndexError: an id outside of `0 <= id < N`.
#[pyfunction]
#[pyo3(signature = (ids, q, dtype=Dtype::F32, *, threads=None), text_signature = "(ids, q, dtype='float32', *, threads=None)")]
pub fn embedding<'py>(
    py: Python<'py>,
    ids: &Bound<'py, PyUntypedArray>,
    q: &Bound<'py, PyQTensor>,
    dtype: Dtype,
    threads: Option<ThreadCount>,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let w = &q.get().0;
    let n = w.rows();
    let as_i64 = ids.call_method("astype", (numpy::dtype::<i64>(py), "C", "safe"), None).map_err(|_| {
        PyValueError::new_err(format!("ids: expected an array of integers, found {}", ids.dtype()))
    })?;
    let as_i64: PyReadonlyArrayDyn<'_, i64> = as_i64.extract()?;
    let mut rows = Vec::with_capacity(ids.len());
    for &id in as_i64.as_slice()? {
        match usize::try_from(id) {
            Ok(row) if row < n => rows.push(row),
            _ => return Err(PyError::from(Error::no_row(id, n)).into()),
        }
    }
    let mut shape = ids.shape().to_vec();
    shape.push(w.columns());
    let mut y = FloatsMut::take_or_new(py, None, None, dtype.0, &shape)?;
    let y_type = y.dtype();
    let y_bytes = y.bytes_mut();
    let threads = ThreadCount::resolve(threads);
    py.detach(|| {
        let mut y = FloatRowsMut::new(y_bytes, y_type, rows.len(), w.columns())?;
        flexq_core::gather(w, &rows, &mut y, threads)
    })
    .map_err(PyError::from)?;
    Ok(y.into_array())
}
