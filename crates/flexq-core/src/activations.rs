//! Dynamic quantization of activations, at the time of a product.
//!
//! # The arithmetic
//! For every group of 128 columns of every row (the last may be shorter), or for the
//! whole row: `a = max |x|`, `scale = a / limit`, `code = clamp(rne(x / scale), -limit,
//! limit)`, in single precision, rounding half to even; `limit` is 127 for 8 bits and 31
//! for 6. Where `scale` is zero, the codes are 0. Where an element is NaN or infinite,
//! the scale is NaN, so that every output of that row is NaN.

use std::cell::Cell;

use crate::arch::{ACTIVATION_GROUP, Kernels, LANES, Layout, QuantizedRows};
use crate::rows::FloatRows;
use crate::threads::{Threads, for_each};

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

/// How activations are quantized.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// The largest code.
    pub limit: i8,
    pub group: ActivationGroup,
    /// Columns per offset.
    pub segment: usize,
}

/// Quantizes `x` into `q`, in the layout that the kernels want.
pub(crate) fn quantize(
    kernels: &Kernels,
    x: &FloatRows<'_>,
    rule: Rule,
    threads: Threads,
    q: &mut QuantizedRows,
) {
    let (stride, segment) = (x.columns().next_multiple_of(ACTIVATION_GROUP), rule.segment);
    let (groups, segments) = (stride / ACTIVATION_GROUP, stride / segment);
    let layout = (kernels.layout)(x.rows());
    let lines = match layout {
        Layout::Rows => x.rows(),
        Layout::Blocks => x.rows().next_multiple_of(LANES),
    };
    (q.rows, q.stride, q.segment, q.layout) = (x.rows(), stride, segment, layout);
    q.codes.resize(lines * stride);
    q.scales.resize(lines * groups);
    q.offsets.resize(lines * segments);
    let blocks = q.codes.chunks_mut(LANES * stride);
    let blocks = blocks.zip(q.scales.chunks_mut(LANES * groups)).zip(q.offsets.chunks_mut(LANES * segments));
    let blocks = blocks.zip(x.bytes().chunks(LANES * x.row_bytes()));
    for_each(threads, blocks, |(((codes, scales), offsets), bytes)| {
        let mut memory = MEMORY.take();
        let Memory { floats, block, lane } = &mut memory;
        lane.scales.resize(groups, 0.0);
        lane.offsets.resize(segments, 0);
        if layout == Layout::Blocks {
            block.clear();
            block.resize(LANES * stride, 0);
            scales.fill(0.0);
            offsets.fill(0);
        }
        for (i, x_row) in bytes.chunks_exact(x.row_bytes()).enumerate() {
            floats.resize(x.columns(), 0.0);
            (kernels.to_f32)(x.dtype(), x_row, floats);
            match layout {
                Layout::Rows => quantize_row(
                    kernels,
                    floats,
                    rule,
                    &mut codes[i * stride..][..stride],
                    &mut scales[i * groups..][..groups],
                    &mut offsets[i * segments..][..segments],
                ),
                Layout::Blocks => {
                    let codes = &mut block[i * stride..][..stride];
                    quantize_row(kernels, floats, rule, codes, &mut lane.scales, &mut lane.offsets);
                    for (scales, &scale) in scales.chunks_exact_mut(LANES).zip(&lane.scales) {
                        scales[i] = scale;
                    }
                    for (offsets, &offset) in offsets.chunks_exact_mut(LANES).zip(&lane.offsets) {
                        offsets[i] = offset;
                    }
                }
            }
        }
        if layout == Layout::Blocks {
            (kernels.interleave)(block, stride, codes);
        }
        MEMORY.set(memory);
    });
}

/// What a thread quantizes in.
#[derive(Default)]
struct Memory {
    floats: Vec<f32>,
    /// Codes of [`LANES`] rows.
    block: Vec<i8>,
    lane: Lane,
}

/// Scales and offsets of one row of a block.
#[derive(Default)]
struct Lane {
    scales: Vec<f32>,
    offsets: Vec<i32>,
}

thread_local! {
    static MEMORY: Cell<Memory> = Cell::default();
}

/// Codes of one row, padded with zeros; the scale of each 128 columns; the offset of each segment.
fn quantize_row(
    kernels: &Kernels,
    x: &[f32],
    rule: Rule,
    codes: &mut [i8],
    scales: &mut [f32],
    offsets: &mut [i32],
) {
    let width = match rule.group {
        ActivationGroup::Columns => ACTIVATION_GROUP,
        ActivationGroup::Row => codes.len(),
    };
    let limit = f32::from(rule.limit);
    let groups = x.chunks(width).zip(codes.chunks_mut(width));
    for ((x, codes), scales) in groups.zip(scales.chunks_mut(width / ACTIVATION_GROUP)) {
        let scale = (kernels.abs_max)(x) / limit;
        let (codes, padding) = codes.split_at_mut(x.len());
        if scale > 0.0 {
            (kernels.quantize_activations)(x, scale, limit, codes);
        } else {
            codes.fill(0);
        }
        padding.fill(0);
        scales.fill(scale);
    }
    for (offset, codes) in offsets.iter_mut().zip(codes.chunks_exact(rule.segment)) {
        *offset = -32 * codes.iter().map(|&code| i32::from(code)).sum::<i32>();
    }
}
