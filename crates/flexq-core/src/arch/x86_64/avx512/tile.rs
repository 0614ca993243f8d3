//! Many rows of activations: weights are unpacked once into a panel that stays in cache,
//! and every panel is multiplied with all rows of activations.
//!
//! Everything lies in tiles of 16 rows: a panel as `[group of 16 rows, 64 columns, row,
//! column]`, activations as [`Layout::Blocks`](crate::arch::Layout), sums as `[group,
//! block, row of the weight, row of activations]`. A vector therefore holds sixteen rows of
//! activations, and the weight's scale is one number.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::avx2::{Rows, from_f32};
use super::transpose::transpose;
use super::unpack::{BLOCK, block, unpack_64};
use super::vnni;
use crate::arch::{ACTIVATION_GROUP, LANES, QuantizedRows, Scratch, Stripe, Weights};

/// Bytes of sixteen rows of 64 codes.
pub(super) const TILE: usize = 1024;
/// Sums of sixteen rows with sixteen rows.
pub(in crate::arch::x86_64) const SUMS: usize = LANES * LANES;

/// Blocks of 128 columns in a panel.
const DEPTH: usize = 4;
/// How far ahead of the loads memory is asked for, in bytes: a panel.
const AHEAD: usize = BLOCK * DEPTH;
/// Groups of sixteen weight rows in a panel that stays in L1.
const GROUPS: usize = 2;
/// Blocks of activations up to which such panels are best: they are read again for each.
const FEW_BLOCKS: usize = 8;

/// One panel against two or fewer blocks of activations.
pub(super) struct Job<'a> {
    pub x: &'a QuantizedRows,
    /// Blocks of 128 columns.
    pub depth: Range<usize>,
    /// `[groups, 2 depth]` tiles.
    pub panel: &'a [u8],
    /// `[groups, segments of the panel, 16]`, the weight's scales.
    pub scales: &'a [f32],
    /// First block of activations.
    pub first: usize,
    /// `[groups, blocks of activations]` of [`SUMS`].
    pub sums: &'a mut [f32],
    /// Blocks of activations in `sums`.
    pub blocks: usize,
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub(super) fn multiply(w: &Weights<'_>, x: &QuantizedRows, out: &mut Stripe<'_>, scratch: &mut Scratch) {
    let columns = out.columns();
    let blocks = x.rows.div_ceil(LANES);
    let groups = columns.len().div_ceil(LANES);
    let together = if blocks <= FEW_BLOCKS { blocks.min(GROUPS).min(groups) } else { groups };
    for first in (0..groups).step_by(together) {
        let start = columns.start + LANES * first;
        let panel = columns.start + LANES * first..columns.end.min(start + LANES * together);
        multiply_panel(w, x, panel, out, scratch);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn multiply_panel(
    w: &Weights<'_>,
    x: &QuantizedRows,
    rows: Range<usize>,
    out: &mut Stripe<'_>,
    scratch: &mut Scratch,
) {
    let Scratch { panel, sums, scales, floats, .. } = scratch;
    let blocks = x.rows.div_ceil(LANES);
    let groups = rows.len().div_ceil(LANES);
    let segments = ACTIVATION_GROUP / x.segment;
    sums.resize(groups * blocks * SUMS);
    sums.fill(0.0);
    let depths = x.stride / ACTIVATION_GROUP;
    for k in (0..depths).step_by(DEPTH) {
        let depth = k..depths.min(k + DEPTH);
        panel.resize(groups * depth.len() * 2 * TILE);
        scales.resize(groups * depth.len() * segments * LANES);
        let scales_of_group = depth.len() * segments * LANES;
        for ((g, panel), scales) in panel
            .chunks_exact_mut(depth.len() * 2 * TILE)
            .enumerate()
            .zip(scales.chunks_exact_mut(scales_of_group))
        {
            let rows = Rows { n: rows.start + LANES * g, end: rows.end };
            rows.scales_of_16(w, k * segments, x.segment, scales);
            unpack(w, rows, depth.clone(), panel, groups <= GROUPS);
        }
        for first in (0..blocks).step_by(vnni::WIDTH) {
            let depth = depth.clone();
            vnni::multiply(&mut Job { x, depth, panel, scales, first, sums, blocks });
        }
    }
    write(out, rows, x.parts, sums, floats);
}

/// Columns `128 depth ..` of sixteen rows as tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn unpack(w: &Weights<'_>, rows: Rows, depth: Range<usize>, panel: &mut [u8], cold: bool) {
    for r in 0..LANES {
        let row = w.packed_row(rows.row(r));
        if cold {
            for line in 0..(BLOCK * depth.len()).div_ceil(64) {
                let at = BLOCK * depth.start + 64 * line + AHEAD;
                _mm_prefetch::<_MM_HINT_T0>(row.as_ptr().wrapping_add(at).cast());
            }
        }
        for (b, tiles) in depth.clone().zip(panel.chunks_exact_mut(2 * TILE)) {
            let mut padded = [0; BLOCK];
            let packed = block(row, b, &mut padded);
            for half in 0..2 {
                let codes = unpack_64(packed, half);
                let tile = &mut tiles[half * TILE + 64 * r..][..64];
                // SAFETY: 64 bytes were just checked.
                unsafe { _mm512_storeu_si512(tile.as_mut_ptr().cast(), codes) };
            }
        }
    }
}

/// Turns sums around and stores them as rows of the output, each from consecutive rows.
#[target_feature(enable = "avx512f,avx512bw,avx2,fma,f16c")]
pub(in crate::arch::x86_64) fn write(
    out: &mut Stripe<'_>,
    rows: Range<usize>,
    parts: usize,
    sums: &[f32],
    turned: &mut Vec<f32>,
) {
    let dtype = out.dtype();
    let blocks = (out.rows() * parts).div_ceil(LANES);
    let groups = rows.len().div_ceil(LANES);
    let start = rows.start - out.columns().start;
    turned.resize(LANES * LANES * groups, 0.0);
    for b in 0..blocks {
        for g in 0..groups {
            let sums = &sums[(g * blocks + b) * SUMS..][..SUMS];
            let mut tile = [_mm512_setzero_si512(); LANES];
            for (row, sums) in tile.iter_mut().zip(sums.chunks_exact(LANES)) {
                // SAFETY: a chunk has sixteen floats.
                *row = unsafe { _mm512_loadu_si512(sums.as_ptr().cast()) };
            }
            for (row, turned) in transpose(&tile).into_iter().zip(turned.chunks_exact_mut(LANES * groups)) {
                let turned = &mut turned[LANES * g..][..LANES];
                // SAFETY: sixteen floats were just checked.
                unsafe { _mm512_storeu_si512(turned.as_mut_ptr().cast(), row) };
            }
        }
        let first = LANES / parts * b;
        for (m, turned) in (first..out.rows()).zip(turned.chunks_exact_mut(parts * LANES * groups)) {
            add_parts(turned, LANES * groups);
            let row = &mut out.row_mut(m)[start * dtype.size()..][..rows.len() * dtype.size()];
            from_f32(dtype, &turned[..rows.len()], row);
        }
    }
}

/// Adds the later of several rows of that width to the first, one after the other.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn add_parts(rows: &mut [f32], width: usize) {
    let (sums, others) = rows.split_at_mut(width);
    for other in others.chunks_exact(width) {
        for (sum, other) in sums.iter_mut().zip(other) {
            *sum += other;
        }
    }
}

/// Adds integer products of one weight row with sixteen rows of activations to their sums.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn add_segment(dots: __m512i, x_scales: __m512, w_scale: f32, sums: &mut [f32]) {
    let sums = &mut sums[..LANES];
    let scale = _mm512_mul_ps(x_scales, _mm512_set1_ps(w_scale));
    let product = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(dots));
    // SAFETY: sixteen floats were just checked.
    unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), _mm512_add_ps(_mm512_loadu_ps(sums.as_ptr()), product)) };
}
