//! GPUs: what there are, and functions on memory there that torch owns.
//!
//! The functions `cuda_*` take addresses, like those of `raw`: `flexq.torch` has checked the
//! tensors behind them and keeps those alive until the work on the stream is done.

use flexq_cuda::device::{self, Device};
use flexq_cuda::grouped::{self, GroupedLinear};
use flexq_cuda::linear::{self, Linear, Matrix, Precision, Workspace};
use flexq_cuda::prepare::{self, Canonical, Weight};
use flexq_cuda::{ActivationBits, Dtype, ScaleType, order};
use pyo3::create_exception;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

create_exception!(
    flexq,
    CudaError,
    PyRuntimeError,
    "No driver, an old one, no GPU, no memory left on it, or another failure of a GPU."
);

/// [`flexq_cuda::Error`] on its way to Python: wrong arguments are a `ValueError`.
pub struct GpuError(flexq_cuda::Error);

impl From<flexq_cuda::Error> for GpuError {
    fn from(error: flexq_cuda::Error) -> Self {
        Self(error)
    }
}

impl From<GpuError> for PyErr {
    fn from(GpuError(error): GpuError) -> Self {
        use flexq_cuda::Error::{Alignment, Config, Null, Size, UnknownDevice};
        let message = error.to_string();
        match error {
            Alignment { .. } | Config { .. } | Null { .. } | Size { .. } | UnknownDevice { .. } => {
                PyValueError::new_err(message)
            }
            _ => CudaError::new_err(message),
        }
    }
}

/// `(address, type)` where type is 0 float16, 1 bfloat16, 2 float32.
type Typed = (u64, u8);
/// `(address of codes, address of scales, type of scales, N, K, group)`; group 0 is the row.
type RawWeight = (u64, u64, u8, usize, usize, usize);
/// `(address, type, rows, elements from row to row)`.
type RawMatrix = (u64, u8, usize, usize);

fn dtype(number: u8) -> PyResult<Dtype> {
    match number {
        0 => Ok(Dtype::F16),
        1 => Ok(Dtype::BF16),
        2 => Ok(Dtype::F32),
        _ => Err(PyValueError::new_err(format!("type {number}: expected 0, 1 or 2"))),
    }
}

fn scale_type(number: u8) -> PyResult<ScaleType> {
    match number {
        0 => Ok(ScaleType::F16),
        1 => Ok(ScaleType::BF16),
        _ => Err(PyValueError::new_err(format!("type {number} of scales: expected 0 or 1"))),
    }
}

/// Bits of activations of that number.
pub fn bits(number: u8) -> PyResult<ActivationBits> {
    match number {
        16 => Ok(ActivationBits::A16),
        8 => Ok(ActivationBits::A8),
        6 => Ok(ActivationBits::A6),
        _ => Err(PyValueError::new_err(format!("act_bits: expected 16, 8 or 6, found {number}"))),
    }
}

fn group(columns: usize) -> flexq_cuda::Group {
    if columns == 0 { flexq_cuda::Group::Row } else { flexq_cuda::Group::Columns(columns) }
}

fn weight((codes, scales, kind, n, k, columns): RawWeight) -> PyResult<Weight> {
    Ok(Weight { codes, scales, scale_type: scale_type(kind)?, n, k, group: group(columns) })
}

fn matrix((address, kind, rows, stride): RawMatrix) -> PyResult<Matrix> {
    Ok(Matrix { address, dtype: dtype(kind)?, rows, stride })
}

fn typed((address, kind): Typed) -> PyResult<(u64, Dtype)> {
    Ok((address, dtype(kind)?))
}

/// What there is to know of every GPU; an empty list where there is none.
///
/// Raises:
///     CudaError: no driver or an old one.
#[pyfunction]
pub fn cuda_info(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyDict>>> {
    let count = device::count().map_err(GpuError)?;
    (0..count)
        .map(|ordinal| {
            let info = device::info(ordinal).map_err(GpuError)?;
            let dict = PyDict::new(py);
            dict.set_item("index", info.ordinal)?;
            dict.set_item("name", info.name)?;
            dict.set_item("capability", info.arch.capability)?;
            dict.set_item("multiprocessors", info.arch.multiprocessors)?;
            dict.set_item("memory", info.memory)?;
            dict.set_item("l2", info.l2)?;
            Ok(dict)
        })
        .collect()
}

/// Bytes of codes and number of scales of `[n, k]` in device order.
#[pyfunction]
pub fn cuda_sizes(n: usize, k: usize, columns: usize) -> (usize, usize) {
    (order::weight_bytes(n, k), order::scale_count(n, k, group(columns).segment()))
}

/// Bytes of workspace for up to `rows` rows, and how many of them must be zero at first; of a
/// product by expert, for exactly `rows`.
#[pyfunction]
#[pyo3(signature = (ordinal, w, rows, x_type, act_bits, per_row, experts=None))]
pub fn cuda_workspace(
    ordinal: usize,
    w: RawWeight,
    rows: usize,
    x_type: u8,
    act_bits: u8,
    per_row: bool,
    experts: Option<usize>,
) -> PyResult<(u64, u64)> {
    let device = Device::get(ordinal).map_err(GpuError)?;
    let precision = Precision { bits: bits(act_bits)?, per_row };
    let (w, x) = (weight(w)?, dtype(x_type)?);
    let bytes = match experts {
        None => linear::workspace_bytes(&device, &w, rows, x, precision),
        Some(experts) => grouped::workspace_bytes(&device, &w, experts, rows, x, precision),
    };
    Ok((bytes.map_err(GpuError)?, linear::COUNTER_BYTES))
}

/// The kernel a product gets, as text, and the bytes of workspace it needs.
#[pyfunction]
#[pyo3(signature = (ordinal, w, x, act_bits, per_row, kernel=None))]
pub fn cuda_choice(
    ordinal: usize,
    w: RawWeight,
    x: RawMatrix,
    act_bits: u8,
    per_row: bool,
    kernel: Option<&str>,
) -> PyResult<(String, u64)> {
    let device = Device::get(ordinal).map_err(GpuError)?;
    let (w, x, precision) = (weight(w)?, matrix(x)?, Precision { bits: bits(act_bits)?, per_row });
    let choose = || -> flexq_cuda::Result<(String, u64)> {
        let config = linear::choice(&device, &w, &x, precision, kernel)?;
        let bytes = linear::workspace_bytes_with(&device, &w, &x, precision, &config)?;
        Ok((config.to_string(), bytes))
    };
    Ok(choose().map_err(GpuError)?)
}

/// Puts canonical `(packed, scales)` into the memory of `w`, in device order.
#[pyfunction]
pub fn cuda_repack(ordinal: usize, stream: u64, source: (u64, u64), w: RawWeight) -> PyResult<()> {
    let device = Device::get(ordinal).map_err(GpuError)?;
    let from = Canonical { packed: source.0, scales: source.1 };
    // SAFETY: `flexq.torch` holds tensors of these sizes; see the module.
    Ok(unsafe { prepare::repack(&device, stream, from, &weight(w)?) }.map_err(GpuError)?)
}

/// The reverse: device order to canonical `(packed, scales)`.
#[pyfunction]
pub fn cuda_restore(ordinal: usize, stream: u64, w: RawWeight, to: (u64, u64)) -> PyResult<()> {
    let device = Device::get(ordinal).map_err(GpuError)?;
    let to = Canonical { packed: to.0, scales: to.1 };
    // SAFETY: `flexq.torch` holds tensors of these sizes; see the module.
    Ok(unsafe { prepare::restore(&device, stream, &weight(w)?, to) }.map_err(GpuError)?)
}

/// Writes the weight as numbers `[n, k]`.
#[pyfunction]
pub fn cuda_dequantize(ordinal: usize, stream: u64, w: RawWeight, y: Typed) -> PyResult<()> {
    let device = Device::get(ordinal).map_err(GpuError)?;
    let (y, kind) = typed(y)?;
    // SAFETY: `flexq.torch` holds tensors of these sizes; see the module.
    Ok(unsafe { prepare::dequantize(&device, stream, &weight(w)?, y, kind) }.map_err(GpuError)?)
}

/// Writes rows of the weight as numbers; `rows` is (address of int64, count).
#[pyfunction]
pub fn cuda_embedding(
    ordinal: usize,
    stream: u64,
    w: RawWeight,
    rows: (u64, usize),
    y: Typed,
) -> PyResult<()> {
    let device = Device::get(ordinal).map_err(GpuError)?;
    let (y, kind) = typed(y)?;
    // SAFETY: `flexq.torch` holds tensors of these sizes; see the module.
    Ok(unsafe { prepare::gather(&device, stream, &weight(w)?, rows, y, kind) }.map_err(GpuError)?)
}

/// Chooses when kernels launched from now on let the next one of their stream start: at once, or
/// `late`, when they have waited for those before them, as Inductor's dependent launches need.
#[pyfunction]
pub fn cuda_trigger_late(late: bool) {
    flexq_cuda::set_trigger_late(late);
}

/// Chooses for products launched from now on whether sums may be rounded beyond f32: `flexq.cuda.exact_sums`.
#[pyfunction]
pub fn cuda_exact_sums(exact: bool) {
    flexq_cuda::set_exact_sums(exact);
}

/// `y = x @ w.T + bias`; `workspace` is (address, bytes), zeroed at first as `cuda_workspace` says.
/// `kernel` asks for a kernel by hand, as `cuda_choice` does.
#[pyfunction]
#[pyo3(signature = (ordinal, stream, w, x, bias, y, act_bits, per_row, workspace, kernel=None))]
pub fn cuda_linear(
    ordinal: usize,
    stream: u64,
    w: RawWeight,
    x: RawMatrix,
    bias: Option<Typed>,
    y: Typed,
    act_bits: u8,
    per_row: bool,
    workspace: (u64, u64),
    kernel: Option<&str>,
) -> PyResult<()> {
    let device = Device::get(ordinal).map_err(GpuError)?;
    let product = Linear {
        weight: &weight(w)?,
        x: matrix(x)?,
        bias: bias.map(typed).transpose()?,
        y: typed(y)?,
        precision: Precision { bits: bits(act_bits)?, per_row },
        workspace: Workspace { address: workspace.0, bytes: workspace.1 },
    };
    let config = linear::choice(&device, product.weight, &product.x, product.precision, kernel);
    // SAFETY: `flexq.torch` holds tensors of these sizes; see the module.
    Ok(config
        .and_then(|config| unsafe { linear::linear_with(&device, stream, &product, &config) })
        .map_err(GpuError)?)
}

/// Rows sorted by expert times the experts' weights; `ends` is (address of int32, experts).
#[pyfunction]
pub fn cuda_grouped_linear(
    ordinal: usize,
    stream: u64,
    w: RawWeight,
    ends: (u64, usize),
    x: RawMatrix,
    y: Typed,
    act_bits: u8,
    per_row: bool,
    workspace: (u64, u64),
) -> PyResult<()> {
    let device = Device::get(ordinal).map_err(GpuError)?;
    let product = GroupedLinear {
        weight: &weight(w)?,
        experts: ends.1,
        ends: ends.0,
        x: matrix(x)?,
        y: typed(y)?,
        precision: Precision { bits: bits(act_bits)?, per_row },
        workspace: Workspace { address: workspace.0, bytes: workspace.1 },
    };
    // SAFETY: `flexq.torch` holds tensors of these sizes; see the module.
    Ok(unsafe { grouped::grouped_linear(&device, stream, &product) }.map_err(GpuError)?)
}
