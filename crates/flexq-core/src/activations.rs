//! Dynamic quantization of activations, at the time of a product.
//!
//! # The arithmetic
//! For every group of 128 columns of every row (the last may be shorter), or for the
//! whole row: `a = max |x|`, `scale = a / limit`, `code = clamp(rne(x / scale), -limit,
//! limit)`, in single precision, rounding half to even; `limit` is 127 for 8 bits and 31
//! for 6. Where `scale` is zero, the codes are 0. Where an element is NaN or infinite,
//! the scale is NaN, so that every output of that row is NaN.

use crate::arch::{ACTIVATION_GROUP, Kernels, QuantizedRows};
use crate::rows::FloatRows;

/// The precision of activations in a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ActivationBits {
    /// As given: a product in single precision.
    A16,
    /// Codes -127..=127.
    #[default]
    A8,
    /// Codes -31..=31.
    A6,
}

impl ActivationBits {
    /// The largest code, or `None` where activations are not quantized.
    #[must_use]
    pub const fn limit(self) -> Option<i8> {
        match self {
            Self::A16 => None,
            Self::A8 => Some(127),
            Self::A6 => Some(31),
        }
    }
}

/// Columns of activations that share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ActivationGroup {
    /// 128 consecutive columns, as in the FlexQ paper.
    #[default]
    Columns,
    /// The whole row.
    Row,
}

/// Quantizes `x` into `q`. `row` is a buffer for one row in f32; `segment` is the width
/// of the sums that the product needs.
pub(crate) fn quantize(
    kernels: &Kernels,
    x: &FloatRows<'_>,
    limit: i8,
    group: ActivationGroup,
    segment: usize,
    row: &mut Vec<f32>,
    q: &mut QuantizedRows,
) {
    let columns = x.columns();
    let groups = columns.div_ceil(ACTIVATION_GROUP);
    q.rows = x.rows();
    q.stride = groups * ACTIVATION_GROUP;
    q.codes.clear();
    q.codes.resize(q.rows * q.stride, 0);
    q.scales.resize(q.rows * groups, 0.0);
    q.sums.resize(q.rows * q.stride / segment, 0);
    row.resize(columns, 0.0);
    if columns == 0 {
        return;
    }
    let width = match group {
        ActivationGroup::Columns => ACTIVATION_GROUP,
        ActivationGroup::Row => q.stride,
    };
    let dtype = x.dtype();
    let codes = q.codes.chunks_exact_mut(q.stride);
    let scales = q.scales.chunks_exact_mut(groups);
    for ((x, codes), scales) in x.bytes().chunks_exact(x.row_bytes()).zip(codes).zip(scales) {
        (kernels.to_f32)(dtype, x, row);
        let groups = row.chunks(width).zip(codes.chunks_mut(width));
        for ((x, codes), scales) in groups.zip(scales.chunks_mut(width / ACTIVATION_GROUP)) {
            let scale = (kernels.abs_max)(x) / f32::from(limit);
            if scale > 0.0 {
                (kernels.quantize_activations)(x, scale, f32::from(limit), &mut codes[..x.len()]);
            }
            scales.fill(scale);
        }
    }
    for (sum, codes) in q.sums.iter_mut().zip(q.codes.chunks_exact(segment)) {
        *sum = codes.iter().map(|&code| i32::from(code)).sum();
    }
}
