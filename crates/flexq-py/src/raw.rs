//! Functions on memory that another library owns, given by address: torch tensors on the CPU.
//!
//! Addresses come from `flexq.torch`, which has checked types, sizes and contiguity of the
//! tensors behind them and keeps those alive for the call. Sizes are computed here anew from
//! shapes, so that the core checks them against each other. Python code that passes an address
//! of anything else breaks the process, as it could with `ctypes`.

use std::slice;

use flexq_core::format::Dtype;
use flexq_core::select::{Candidate, Hints, Pattern, Preset, Rules};
use flexq_core::{
    ActivationBits, ActivationGroup, Cpu, Error, FloatRows, FloatRowsMut, FloatType, Group, MatmulOptions,
    QTensor, ScaleType, Scheme, SharedBytes, layout,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::PyError;
use crate::openmp;

/// `(address, type)` of a dense matrix whose shape follows from the weight.
type Floats = (usize, u8);
/// `(address of codes, address of scales, type of scales, rows, columns, group)`; a group of 0
/// columns stands for the whole row.
type Weight = (usize, usize, u8, usize, usize, usize);

fn float_type(number: u8) -> Result<FloatType, Error> {
    match number {
        0 => Ok(FloatType::F16),
        1 => Ok(FloatType::BF16),
        2 => Ok(FloatType::F32),
        _ => Err(Error::unknown("number of a floating-point type", number, "0, 1, 2")),
    }
}

fn scale_type(number: u8) -> Result<ScaleType, Error> {
    match number {
        0 => Ok(ScaleType::F16),
        1 => Ok(ScaleType::BF16),
        3 => Ok(ScaleType::Pair),
        _ => Err(Error::unknown("number of a type of scales", number, "0, 1, 3")),
    }
}

fn group(columns: usize) -> Result<Group, Error> {
    if columns == 0 { Ok(Group::Row) } else { Group::columns(columns) }
}

fn activation_bits(bits: u8) -> Result<ActivationBits, Error> {
    match bits {
        16 => Ok(ActivationBits::A16),
        8 => Ok(ActivationBits::A8),
        6 => Ok(ActivationBits::A6),
        _ => Err(Error::unknown("activation bits", bits, "16, 8, 6")),
    }
}

/// Bytes of a dense matrix.
fn dense_bytes(rows: usize, columns: usize, dtype: FloatType) -> Result<usize, Error> {
    rows.checked_mul(columns)
        .and_then(|n| n.checked_mul(dtype.size()))
        .ok_or(Error::TooLarge { rows, columns })
}

/// Memory of a tensor that Python keeps alive.
struct Foreign {
    address: usize,
    len: usize,
}

impl AsRef<[u8]> for Foreign {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: whoever made this, in `weight`, keeps the memory alive and unchanged.
        unsafe { read(self.address, self.len) }
    }
}

/// The bytes of a tensor that is read.
///
/// # Safety
/// `len` bytes at `address` are readable and nobody writes them during `'a`.
unsafe fn read<'a>(address: usize, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: promised by the caller.
    unsafe { slice::from_raw_parts(address as *const u8, len) }
}

/// The bytes of a tensor that is written.
///
/// # Safety
/// `len` bytes at `address` are writable and nobody else uses them during `'a`.
unsafe fn write<'a>(address: usize, len: usize) -> &'a mut [u8] {
    if len == 0 {
        return &mut [];
    }
    // SAFETY: promised by the caller.
    unsafe { slice::from_raw_parts_mut(address as *mut u8, len) }
}

/// The weight behind its addresses.
///
/// # Safety
/// The tensors have the sizes that the shape gives, and live unchanged as long as the result.
unsafe fn weight((packed, scales, scale_dtype, rows, columns, group_size): Weight) -> Result<QTensor, Error> {
    let group = group(group_size)?;
    let scale_type = scale_type(scale_dtype)?;
    let (packed_bytes, scale_bytes) = layout::sizes(rows, columns, group)?;
    let scheme = Scheme { group, scale_type, ..Scheme::default() };
    QTensor::from_parts(
        vec![rows, columns],
        scale_type.float_type(),
        scheme,
        SharedBytes::new(Foreign { address: packed, len: packed_bytes }),
        SharedBytes::new(Foreign { address: scales, len: scale_bytes }),
    )
}

/// `out = x @ w.T`: x `(address, type, rows)`, out `[rows, N]`.
#[pyfunction]
pub fn cpu_linear(
    py: Python<'_>,
    x: (usize, u8, usize),
    w: Weight,
    act_bits: u8,
    per_row: bool,
    out: Floats,
    threads: usize,
) -> Result<(), PyError> {
    let (address, dtype, rows) = x;
    let (n, k) = (w.3, w.4);
    let (x_type, out_type) = (float_type(dtype)?, float_type(out.1)?);
    let (x_bytes, out_bytes) = (dense_bytes(rows, k, x_type)?, dense_bytes(rows, n, out_type)?);
    let options = MatmulOptions {
        bits: activation_bits(act_bits)?,
        group: if per_row { ActivationGroup::Row } else { ActivationGroup::default() },
        threads: openmp::threads(threads),
    };
    py.detach(|| {
        // SAFETY: `flexq.torch` holds tensors of these sizes during the call; see the module.
        let (x, w, out) = unsafe { (read(address, x_bytes), weight(w)?, write(out.0, out_bytes)) };
        let x = FloatRows::new(x, x_type, rows, k)?;
        Cpu::default().matmul(&x, &w, &options, &mut FloatRowsMut::new(out, out_type, rows, n)?)
    })?;
    Ok(())
}

/// Rows of the weight, `indices` being `(address of int64, count)`; out `[count, K]`.
#[pyfunction]
pub fn cpu_embedding(
    py: Python<'_>,
    indices: (usize, usize),
    w: Weight,
    out: Floats,
    threads: usize,
) -> Result<(), PyError> {
    let k = w.4;
    let dtype = float_type(out.1)?;
    let out_bytes = dense_bytes(indices.1, k, dtype)?;
    py.detach(|| {
        // SAFETY: `flexq.torch` holds tensors of these sizes during the call; see the module.
        let (bytes, w, out) =
            unsafe { (read(indices.0, indices.1 * size_of::<i64>()), weight(w)?, write(out.0, out_bytes)) };
        let (indices, _) = bytes.as_chunks();
        let indices =
            indices.iter().map(|&index| row(i64::from_le_bytes(index), &w)).collect::<Result<Vec<_>, _>>()?;
        let mut out = FloatRowsMut::new(out, dtype, indices.len(), k)?;
        Cpu::default().gather(&w, &indices, &mut out, openmp::threads(threads))
    })?;
    Ok(())
}

fn row(index: i64, w: &QTensor) -> Result<usize, Error> {
    usize::try_from(index).map_err(|_| Error::no_row(index, w.rows()))
}

/// The whole weight as floats, `[N, K]`.
#[pyfunction]
pub fn cpu_dequantize(py: Python<'_>, w: Weight, out: Floats, threads: usize) -> Result<(), PyError> {
    let (rows, k) = (w.3, w.4);
    let dtype = float_type(out.1)?;
    let out_bytes = dense_bytes(rows, k, dtype)?;
    py.detach(|| {
        // SAFETY: `flexq.torch` holds tensors of these sizes during the call; see the module.
        let (w, out) = unsafe { (weight(w)?, write(out.0, out_bytes)) };
        let mut out = FloatRowsMut::new(out, dtype, rows, k)?;
        Cpu::default().dequantize_rows(&w, 0..rows, &mut out, openmp::threads(threads))
    })?;
    Ok(())
}

/// Quantizes `source [N, K]` into the memory of `w`.
#[pyfunction]
pub fn cpu_quantize(
    py: Python<'_>,
    source: Floats,
    w: Weight,
    rule: &str,
    threads: usize,
) -> Result<(), PyError> {
    let (packed, scales, scale_dtype, rows, k, group_size) = w;
    let dtype = float_type(source.1)?;
    let source_bytes = dense_bytes(rows, k, dtype)?;
    let scheme =
        Scheme { group: group(group_size)?, rule: rule.parse()?, scale_type: scale_type(scale_dtype)? };
    let (packed_bytes, scale_bytes) = layout::sizes(rows, k, scheme.group)?;
    py.detach(|| {
        // SAFETY: `flexq.torch` holds tensors of these sizes during the call; see the module.
        let (source, packed, scales) = unsafe {
            (read(source.0, source_bytes), write(packed, packed_bytes), write(scales, scale_bytes))
        };
        let source = FloatRows::new(source, dtype, rows, k)?;
        Cpu::default().quantize_rows(&source, &scheme, packed, scales, openmp::threads(threads))
    })?;
    Ok(())
}

/// Why each of the tensors `(name, shape)` is kept, `None` for those to quantize.
///
/// The rules are those of `flexq-pack pack`: a preset, tensors added to it, tensors taken from it.
#[pyfunction]
pub fn select(
    tensors: Vec<(String, Vec<usize>)>,
    preset: &str,
    include: Vec<String>,
    exclude: Vec<String>,
    model_type: Option<String>,
    hidden_size: Option<usize>,
) -> PyResult<Vec<Option<String>>> {
    let patterns = |texts: Vec<String>| {
        texts
            .iter()
            .map(|text| Pattern::new(text))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| PyValueError::new_err(error.to_string()))
    };
    let rules = Rules {
        preset: preset.parse::<Preset>().map_err(PyError::from)?,
        include: patterns(include)?,
        exclude: patterns(exclude)?,
    };
    let candidates: Vec<_> =
        tensors.iter().map(|(name, shape)| Candidate { name, dtype: Dtype::F32, shape }).collect();
    let reasons = rules
        .decide(&candidates, &Hints { model_type, hidden_size })
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(reasons.into_iter().map(|reason| reason.map(|reason| reason.to_string())).collect())
}
