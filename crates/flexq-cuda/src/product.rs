//! A product as callers describe it: `y [m, n] = x [m, k] w^T + bias`.

use crate::config::{Activations, Problem};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::prepare::Weight;
use crate::types::{ActivationBits, Dtype};

/// A dense matrix of rows `stride` elements apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Its address.
    pub address: u64,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Number of rows.
    pub rows: usize,
    /// Elements from one row to the next.
    pub stride: usize,
}

/// Precision of activations, and how many columns share a scale where they are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// 16, 8 or 6 bits.
    pub bits: ActivationBits,
    /// One scale for a row rather than for 128 columns.
    pub per_row: bool,
}

/// Memory a product may use for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// Its address, a multiple of 256. The first [`COUNTER_BYTES`](crate::workspace::COUNTER_BYTES) bytes are zero.
    pub address: u64,
    /// Its size.
    pub bytes: u64,
}

/// A product.
#[derive(Clone, Copy, Debug)]
pub struct Linear<'a> {
    /// The weight.
    pub weight: &'a Weight,
    /// Activations, `[m, k]` in half precision or bfloat16.
    pub x: Matrix,
    /// `[n]`, added to every row of the result.
    pub bias: Option<(u64, Dtype)>,
    /// The result, `[m, n]`, rows one after another; a multiple of 16.
    pub y: (u64, Dtype),
    /// How activations are multiplied.
    pub precision: Precision,
    /// At least [`workspace_bytes`](crate::linear::workspace_bytes).
    pub workspace: Workspace,
}

impl Linear<'_> {
    pub(crate) fn problem(&self, device: &Device) -> Result<Problem> {
        problem(device, self.weight, &self.x, self.precision)
    }
}

pub(crate) fn problem(device: &Device, weight: &Weight, x: &Matrix, precision: Precision) -> Result<Problem> {
    let activations = match (precision.bits, x.dtype) {
        (_, Dtype::F32) => {
            return Err(Error::Size {
                what: "bits of an activation",
                expected: "16 (float16 or bfloat16)".to_owned(),
                found: 32,
            });
        }
        (ActivationBits::A16, Dtype::F16) => Activations::F16,
        (ActivationBits::A16, Dtype::BF16) => Activations::BF16,
        _ => Activations::Int8 { per_row: precision.per_row },
    };
    if weight.k == 0 {
        return Err(Error::Size { what: "K", expected: "at least 1 on a GPU".to_owned(), found: 0 });
    }
    let quantized = precision.bits != ActivationBits::A16;
    Ok(Problem {
        arch: device.info().arch,
        m: x.rows,
        n: weight.n,
        k: weight.k,
        activations,
        segment: weight.group.segment(),
        aligned: quantized || (x.address.is_multiple_of(16) && x.stride.is_multiple_of(8)),
    })
}
