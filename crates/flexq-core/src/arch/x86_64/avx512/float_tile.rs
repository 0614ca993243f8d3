//! Many rows of f32 activations: weights are dequantized once into a panel that stays in
//! cache, and every panel is multiplied with all rows of activations, thirty-two at a time.
//!
//! As in [`tile`](super::tile), a vector holds sixteen rows of activations.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::avx2::Rows;
use super::tile::{SUMS, write};
use super::transpose::transpose;
use super::unpack::{block, unpack_64};
use crate::arch::{ACTIVATION_GROUP, Buffer, LANES, Scratch, Stripe, Weights};

/// Blocks of 128 columns in a panel.
const DEPTH: usize = 2;
/// Weight rows multiplied together.
const TOGETHER: usize = 8;

/// Blocks of sixteen rows side by side, `[blocks, K, 16]`; rows of zeros fill the last.
#[target_feature(enable = "avx512f")]
pub(super) fn arrange(x: &[f32], columns: usize, arranged: &mut Buffer<f32>) {
    arranged.resize((x.len() / columns).next_multiple_of(LANES) * columns);
    let rows = x.chunks(LANES * columns);
    for (rows, arranged) in rows.zip(arranged.chunks_exact_mut(LANES * columns)) {
        for (c, arranged) in arranged.chunks_mut(LANES * LANES).enumerate() {
            let mut tile = [_mm512_setzero_si512(); LANES];
            for (lane, row) in tile.iter_mut().zip(rows.chunks_exact(columns)) {
                let x = &row[LANES * c..];
                let count = x.len().min(LANES);
                // SAFETY: only lanes that the row has are read.
                *lane = unsafe {
                    _mm512_maskz_loadu_epi32((1u32 << count).wrapping_sub(1) as u16, x.as_ptr().cast())
                };
            }
            for (column, arranged) in transpose(&tile).into_iter().zip(arranged.chunks_exact_mut(LANES)) {
                // SAFETY: a chunk has sixteen floats.
                unsafe { _mm512_storeu_si512(arranged.as_mut_ptr().cast(), column) };
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,fma,f16c")]
pub(super) fn multiply(w: &Weights<'_>, x: &[f32], out: &mut Stripe<'_>, scratch: &mut Scratch) {
    let columns = out.columns();
    let blocks = out.rows().div_ceil(LANES);
    let groups = columns.len().div_ceil(LANES);
    let depths = w.columns.div_ceil(ACTIVATION_GROUP);
    let Scratch { weights: panel, sums, scales, floats, .. } = scratch;
    panel.resize(groups * DEPTH * ACTIVATION_GROUP * LANES);
    sums.resize(groups * blocks * SUMS);
    sums.fill(0.0);
    for k in (0..depths).step_by(DEPTH) {
        let depth = k..depths.min(k + DEPTH);
        let width = w.columns.min(depth.end * ACTIVATION_GROUP) - k * ACTIVATION_GROUP;
        for (g, panel) in panel.chunks_exact_mut(DEPTH * ACTIVATION_GROUP * LANES).enumerate() {
            let rows = Rows { n: columns.start + LANES * g, end: columns.end };
            dequantize(w, rows, depth.clone(), panel, scales);
        }
        for first in (0..blocks).step_by(2) {
            let x = &x[(first * w.columns + k * ACTIVATION_GROUP) * LANES..];
            for (g, panel) in panel.chunks_exact(DEPTH * ACTIVATION_GROUP * LANES).enumerate() {
                let sums = &mut sums[(g * blocks + first) * SUMS..];
                for r in (0..LANES).step_by(TOGETHER) {
                    let panel = &panel[r * DEPTH * ACTIVATION_GROUP..];
                    match blocks - first {
                        1 => multiply_panel::<1>(panel, x, w.columns, width, &mut sums[r * LANES..]),
                        _ => multiply_panel::<2>(panel, x, w.columns, width, &mut sums[r * LANES..]),
                    }
                }
            }
        }
    }
    write(out, columns, 1, sums, floats);
}

/// Columns `128 depth ..` of sixteen rows, `[16, 128 DEPTH]`.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,f16c")]
fn dequantize(w: &Weights<'_>, rows: Rows, depth: Range<usize>, panel: &mut [f32], scales: &mut Buffer<f32>) {
    let segment = w.segment_width();
    let per_block = ACTIVATION_GROUP / segment;
    scales.resize(depth.len() * per_block * LANES);
    rows.scales_of_16(w, depth.start * per_block, segment, scales);
    for (r, panel) in panel.chunks_exact_mut(DEPTH * ACTIVATION_GROUP).enumerate() {
        let row = w.packed_row(rows.row(r));
        for (d, values) in panel.chunks_exact_mut(ACTIVATION_GROUP).enumerate().take(depth.len()) {
            let mut padded = [0; super::unpack::BLOCK];
            let packed = block(row, depth.start + d, &mut padded);
            for half in 0..2 {
                let mut bytes = [0u8; 64];
                // SAFETY: the array has 64 bytes.
                unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), unpack_64(packed, half)) };
                for (i, bytes) in bytes.as_chunks::<LANES>().0.iter().enumerate() {
                    let column = 64 * half + LANES * i;
                    // SAFETY: the array has sixteen bytes.
                    let codes = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
                    let codes = _mm512_sub_epi32(_mm512_cvtepu8_epi32(codes), _mm512_set1_epi32(32));
                    let scale = _mm512_set1_ps(scales[(d * per_block + column / segment) * LANES + r]);
                    let values = &mut values[column..][..LANES];
                    // SAFETY: sixteen floats were just checked.
                    unsafe {
                        _mm512_storeu_ps(
                            values.as_mut_ptr(),
                            _mm512_mul_ps(_mm512_cvtepi32_ps(codes), scale),
                        );
                    };
                }
            }
        }
    }
}

/// Adds the products of `width` columns of eight weight rows with `B` blocks of activations,
/// `stride` columns apart, to the sums.
#[target_feature(enable = "avx512f")]
fn multiply_panel<const B: usize>(panel: &[f32], x: &[f32], stride: usize, width: usize, sums: &mut [f32]) {
    let mut acc = [[_mm512_setzero_ps(); B]; TOGETHER];
    let mut blocks: [&[f32]; B] = [&[]; B];
    for (b, block) in blocks.iter_mut().enumerate() {
        *block = &x[b * stride * LANES..][..width * LANES];
        for (r, acc) in acc.iter_mut().enumerate() {
            let sums = &sums[b * SUMS + r * LANES..][..LANES];
            // SAFETY: sixteen floats were just checked.
            acc[b] = unsafe { _mm512_loadu_ps(sums.as_ptr()) };
        }
    }
    let mut rows: [&[f32]; TOGETHER] = [&[]; TOGETHER];
    for (row, panel) in rows.iter_mut().zip(panel.chunks_exact(DEPTH * ACTIVATION_GROUP)) {
        *row = &panel[..width];
    }
    for k in 0..width {
        let mut x = [_mm512_setzero_ps(); B];
        for (x, block) in x.iter_mut().zip(blocks) {
            let block = &block[k * LANES..][..LANES];
            // SAFETY: sixteen floats were just checked.
            *x = unsafe { _mm512_loadu_ps(block.as_ptr()) };
        }
        for (acc, row) in acc.iter_mut().zip(rows) {
            let w = _mm512_set1_ps(row[k]);
            for (acc, x) in acc.iter_mut().zip(x) {
                *acc = _mm512_fmadd_ps(w, x, *acc);
            }
        }
    }
    for (r, acc) in acc.into_iter().enumerate() {
        for (b, acc) in acc.into_iter().enumerate() {
            let sums = &mut sums[b * SUMS + r * LANES..][..LANES];
            // SAFETY: sixteen floats were just checked.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), acc) };
        }
    }
}
