//! Dynamic quantization of activations, at the time of a product.
//!
//! # The arithmetic
//! For every group of 128 columns of every row (the last may be shorter), or for the
//! whole row: `a = max |x|`, `scale = a / limit`, `code = clamp(rne(x / scale), -limit,
//! limit)`, in single precision, rounding half to even; `limit` is 127 for 8 bits and 31
//! for 6. Where `scale` is zero, the codes are 0. Where an element is NaN or infinite,
//! the scale is NaN, so that every output of that row is NaN.

use crate::arch::{ACTIVATION_GROUP, Kernels, LANES, QuantizedRows};
use crate::rows::FloatRows;
use crate::threads::{Threads, for_each, for_each_with};

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
    match q.resize(kernels, x.rows(), x.columns(), rule.segment) {
        None => quantize_rows(kernels, x, rule, threads, q),
        Some(blocks) => {
            let whole = scales_of_rows(kernels, x, rule, threads);
            write_blocks(q, threads, |block, first, out| {
                (blocks.quantize)(x, block * LANES, first, rule, &whole, out);
            });
        }
    }
}

/// As rows: threads take some at a time.
fn quantize_rows(kernels: &Kernels, x: &FloatRows<'_>, rule: Rule, threads: Threads, q: &mut QuantizedRows) {
    const ROWS: usize = 16;
    let (groups, segments) = (q.stride / ACTIVATION_GROUP, q.stride / rule.segment);
    let rows = q.codes.chunks_mut(ROWS * q.stride);
    let rows = rows.zip(q.scales.chunks_mut(ROWS * groups)).zip(q.offsets.chunks_mut(ROWS * segments));
    let rows = rows.zip(x.bytes().chunks(ROWS * x.row_bytes()));
    for_each_with(threads, rows, |floats: &mut Vec<f32>, (((codes, scales), offsets), bytes)| {
        floats.resize(x.columns(), 0.0);
        let rows = codes.chunks_exact_mut(q.stride).zip(scales.chunks_exact_mut(groups));
        let rows = rows.zip(offsets.chunks_exact_mut(segments));
        for (((codes, scales), offsets), bytes) in rows.zip(bytes.chunks_exact(x.row_bytes())) {
            (kernels.to_f32)(x.dtype(), bytes, floats);
            let whole = rule.scale_of_row(kernels, floats);
            for (g, (scale, codes)) in scales.iter_mut().zip(codes.chunks_mut(ACTIVATION_GROUP)).enumerate() {
                let floats = &floats[g * ACTIVATION_GROUP..];
                let floats = &floats[..floats.len().min(ACTIVATION_GROUP)];
                *scale = quantize_group(kernels, floats, rule, whole, codes);
            }
            for (offset, codes) in offsets.iter_mut().zip(codes.chunks_exact(rule.segment)) {
                *offset = offset_of(codes);
            }
        }
    });
}

/// Codes of a block: 128 columns of [`LANES`] rows side by side.
pub(crate) struct BlockCodes<'a> {
    /// `[32, 16, 4]`
    pub codes: &'a mut [i8],
    /// `[16]`
    pub scales: &'a mut [f32],
    /// `[128 / segment, 16]`, or empty
    pub offsets: &'a mut [i32],
}

/// Fills blocks with `write`, which is given the index of a block and its first column; threads
/// take 128 columns of all rows at a time.
pub(crate) fn write_blocks(
    q: &mut QuantizedRows,
    threads: Threads,
    write: impl Fn(usize, usize, &mut BlockCodes<'_>) + Sync,
) {
    const BLOCK: usize = LANES * ACTIVATION_GROUP;
    let blocks = q.rows.div_ceil(LANES);
    let offsets_of_block = LANES * ACTIVATION_GROUP / q.segment;
    let groups = q.codes.chunks_exact_mut(blocks * BLOCK).zip(q.scales.chunks_exact_mut(blocks * LANES));
    let mut offsets = q.offsets.chunks_exact_mut(blocks * offsets_of_block);
    let groups = groups.map(|group| (group, offsets.next().unwrap_or_default())).enumerate();
    for_each(threads, groups, |(g, ((codes, scales), offsets))| {
        let mut offsets = offsets.chunks_exact_mut(offsets_of_block);
        let blocks = codes.chunks_exact_mut(BLOCK).zip(scales.chunks_exact_mut(LANES)).enumerate();
        for (b, (codes, scales)) in blocks {
            let offsets = offsets.next().unwrap_or_default();
            write(b, g * ACTIVATION_GROUP, &mut BlockCodes { codes, scales, offsets });
        }
    });
}

/// The scale of every row where rows have one each, or else none.
fn scales_of_rows(kernels: &Kernels, x: &FloatRows<'_>, rule: Rule, threads: Threads) -> Vec<f32> {
    if rule.group == ActivationGroup::Columns {
        return Vec::new();
    }
    let mut scales = vec![0.0; x.rows()];
    let rows = scales.iter_mut().zip(x.bytes().chunks_exact(x.row_bytes()));
    for_each_with(threads, rows, |floats: &mut Vec<f32>, (scale, bytes)| {
        floats.resize(x.columns(), 0.0);
        (kernels.to_f32)(x.dtype(), bytes, floats);
        *scale = (kernels.abs_max)(floats) / f32::from(rule.limit);
    });
    scales
}

impl Rule {
    /// The scale of a whole row, if that is what is asked for.
    fn scale_of_row(self, kernels: &Kernels, x: &[f32]) -> Option<f32> {
        (self.group == ActivationGroup::Row).then(|| (kernels.abs_max)(x) / f32::from(self.limit))
    }
}

/// Codes of up to 128 columns, padded with zeros, and their scale, which is the row's if that is
/// given.
fn quantize_group(kernels: &Kernels, x: &[f32], rule: Rule, whole: Option<f32>, codes: &mut [i8]) -> f32 {
    let limit = f32::from(rule.limit);
    let scale = whole.unwrap_or_else(|| (kernels.abs_max)(x) / limit);
    let (codes, padding) = codes.split_at_mut(x.len());
    if scale > 0.0 {
        (kernels.quantize_activations)(x, scale, limit, codes);
    } else {
        codes.fill(0);
    }
    padding.fill(0);
    scale
}

/// What turns a dot product with codes stored as `q + 32` into one with `q`.
pub(crate) fn offset_of(codes: &[i8]) -> i32 {
    -32 * codes.iter().map(|&code| i32::from(code)).sum::<i32>()
}
