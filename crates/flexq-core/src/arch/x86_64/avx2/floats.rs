//! Products with f32 activations.

use std::arch::x86_64::*;

use super::convert::from_f32;
use super::memory::{load_f32, load_halves, store_f32};
use super::panel::ROWS;
use super::rows::{Rows, prefetch, scales_4};
use super::unpack::{BLOCK, block};
use crate::arch::{Buffer, MAX_STRIPE, Scratch, Stripe, Weights, scalar};

/// Rows of activations up to which weights stream through registers.
const MAX_STREAMED: usize = 3;
/// Rows of activations multiplied together with a panel.
const TOGETHER: usize = 6;
/// How far ahead of the loads memory is asked for, in bytes.
const AHEAD: usize = 1024;

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn multiply(w: &Weights<'_>, x: &[f32], out: &mut Stripe<'_>, scratch: &mut Scratch) {
    if out.rows() > MAX_STREAMED {
        return multiply_panels(w, x, out, scratch);
    }
    match w.segment_width() {
        16 | 32 => multiply_segments::<1>(w, x, out),
        64 => multiply_segments::<2>(w, x, out),
        _ => multiply_segments::<4>(w, x, out),
    }
}

/// Few rows are padded with zeros to whole blocks of 128, and every 32 columns reordered so
/// that those of the same place in their four come together (0 4 8 .. 28, 1 5 .. 29 and so
/// on): codes of the same place lie alike in their 24 bits.
pub(super) fn arrange(x: &[f32], columns: usize, arranged: &mut Buffer<f32>) {
    if x.len() / columns > MAX_STREAMED {
        return scalar::arrange_floats(x, columns, arranged);
    }
    let stride = columns.next_multiple_of(128);
    arranged.resize(x.len() / columns * stride);
    arranged.fill(0.0);
    for (row, arranged) in x.chunks_exact(columns).zip(arranged.chunks_exact_mut(stride)) {
        for (x, arranged) in row.chunks(32).zip(arranged.chunks_exact_mut(32)) {
            for (k, &x) in x.iter().enumerate() {
                arranged[k % 4 * 8 + k / 4] = x;
            }
        }
    }
}

/// `V`: vectors of 32 codes multiplied together, in one segment or, with `V` 1, in two halves.
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_segments<const V: usize>(w: &Weights<'_>, x: &[f32], out: &mut Stripe<'_>) {
    match out.rows() {
        0 => {}
        1 => multiply_rows::<V, 1>(w, x, out),
        2 => multiply_rows::<V, 2>(w, x, out),
        _ => multiply_rows::<V, MAX_STREAMED>(w, x, out),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_rows<const V: usize, const M: usize>(w: &Weights<'_>, x: &[f32], out: &mut Stripe<'_>) {
    let columns = out.columns();
    let stride = w.columns.next_multiple_of(128);
    let mut y = [[0.0f32; MAX_STRIPE]; M];
    for (i, n) in columns.clone().enumerate() {
        let (packed, scales) = (w.packed_row(n), w.scales_row(n));
        let mut sums = [_mm256_setzero_ps(); M];
        for b in 0..stride / 128 {
            let mut rows: [&[f32]; M] = [&[]; M];
            for (m, row) in rows.iter_mut().enumerate() {
                *row = &x[m * stride + 128 * b..][..128];
            }
            prefetch(packed, b, AHEAD, 0);
            add_block::<V, M>(w, b, block(packed, b, &mut [0; BLOCK]), scales, rows, &mut sums);
        }
        for (y, sum) in y.iter_mut().zip(sums) {
            y[i] = sum_lanes(sum);
        }
    }
    let dtype = out.dtype();
    for (m, y) in y.iter().enumerate() {
        from_f32(dtype, &y[..columns.len()], out.row_mut(m));
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_block<const V: usize, const M: usize>(
    w: &Weights<'_>,
    b: usize,
    packed: &[u8; BLOCK],
    scales: &[u8],
    x: [&[f32]; M],
    sums: &mut [__m256; M],
) {
    let width = w.scale_width();
    for s in 0..4 / V {
        let mut parts = [[_mm256_setzero_ps(); 2]; M];
        for v in s * V..s * V + V {
            for (i, codes) in signed_codes(packed, v).into_iter().enumerate() {
                for (parts, x) in parts.iter_mut().zip(x) {
                    parts[i % 2] = _mm256_fmadd_ps(codes, load_f32(x, 32 * v + 8 * i), parts[i % 2]);
                }
            }
        }
        // past the end of a row activations are zero and any scale does
        let i = (128 * b + 32 * V * s) / width;
        let bits = [w.scale_at(scales, i), w.scale_at(scales, if width < 32 { i + 1 } else { i }), 0, 0];
        let pair = scales_4(w.scale_type, bits);
        // the lower lanes hold the first sixteen columns of every vector, see `deinterleave`
        let scale = _mm256_set_m128(_mm_broadcastss_ps(_mm_movehdup_ps(pair)), _mm_broadcastss_ps(pair));
        for (sum, parts) in sums.iter_mut().zip(parts) {
            *sum = _mm256_fmadd_ps(_mm256_add_ps(parts[0], parts[1]), scale, *sum);
        }
    }
}

/// Codes `32 v .. 32 v + 32` of a block as f32; vector `i` holds those of place `i` in
/// their four.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn signed_codes(block: &[u8; BLOCK], v: usize) -> [__m256; 4] {
    let (packed, shift) =
        if v == 3 { (load_halves(block, 72, 80), 4) } else { (load_halves(block, 24 * v, 24 * v + 12), 0) };
    let s = shift;
    #[rustfmt::skip]
    let triples = _mm256_setr_epi8(
        0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1,
        s, s + 1, s + 2, -1, s + 3, s + 4, s + 5, -1, s + 6, s + 7, s + 8, -1, s + 9, s + 10, s + 11, -1,
    );
    // offset binary to two's complement: the top bit of every code flips
    let quads = _mm256_xor_si256(_mm256_shuffle_epi8(packed, triples), _mm256_set1_epi32(0x0082_0820));
    [
        _mm256_cvtepi32_ps(_mm256_srai_epi32::<26>(_mm256_slli_epi32::<26>(quads))),
        _mm256_cvtepi32_ps(_mm256_srai_epi32::<26>(_mm256_slli_epi32::<20>(quads))),
        _mm256_cvtepi32_ps(_mm256_srai_epi32::<26>(_mm256_slli_epi32::<14>(quads))),
        _mm256_cvtepi32_ps(_mm256_srai_epi32::<26>(_mm256_slli_epi32::<8>(quads))),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn sum_lanes(x: __m256) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}

/// Many rows: blocks of 128 columns of sixteen weight rows are dequantized into a panel in L1.
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_panels(w: &Weights<'_>, x: &[f32], out: &mut Stripe<'_>, scratch: &mut Scratch) {
    let (columns, rows) = (out.columns(), out.rows());
    let Scratch { floats: panel, sums, .. } = scratch;
    panel.resize(128 * ROWS, 0.0);
    for n in columns.clone().step_by(ROWS) {
        sums.resize(rows * ROWS);
        sums.fill(0.0);
        for k in (0..w.columns).step_by(128) {
            Rows { n, end: columns.end }.dequantize(w, k / 128, panel);
            let depth = 128.min(w.columns - k);
            let mut m = 0;
            while m < rows {
                let left = rows - m;
                let height = left.div_ceil(left.div_ceil(TOGETHER));
                let sums = &mut sums[m * ROWS..(m + height) * ROWS];
                let x = &x[m * w.columns + k..];
                match height {
                    1 => multiply_panel::<1>(panel, x, w.columns, depth, sums),
                    2 => multiply_panel::<2>(panel, x, w.columns, depth, sums),
                    3 => multiply_panel::<3>(panel, x, w.columns, depth, sums),
                    4 => multiply_panel::<4>(panel, x, w.columns, depth, sums),
                    5 => multiply_panel::<5>(panel, x, w.columns, depth, sums),
                    _ => multiply_panel::<TOGETHER>(panel, x, w.columns, depth, sums),
                }
                m += height;
            }
        }
        let dtype = out.dtype();
        let (start, count) = (n - columns.start, ROWS.min(columns.end - n));
        for (m, sums) in sums.chunks_exact(ROWS).enumerate() {
            let row = &mut out.row_mut(m)[start * dtype.size()..][..count * dtype.size()];
            from_f32(dtype, &sums[..count], row);
        }
    }
}

/// Adds the products of `depth` columns of a panel with `M` rows of activations to
/// `sums`, `[M, 16]`.
#[target_feature(enable = "avx2,fma")]
fn multiply_panel<const M: usize>(panel: &[f32], x: &[f32], stride: usize, depth: usize, sums: &mut [f32]) {
    let mut rows: [&[f32]; M] = [&[]; M];
    let mut acc = [[_mm256_setzero_ps(); 2]; M];
    for m in 0..M {
        rows[m] = &x[m * stride..][..depth];
        acc[m] = [load_f32(sums, m * ROWS), load_f32(sums, m * ROWS + 8)];
    }
    for (k, w) in panel.chunks_exact(ROWS).take(depth).enumerate() {
        let w = [load_f32(w, 0), load_f32(w, 8)];
        for (acc, x) in acc.iter_mut().zip(rows) {
            let x = _mm256_set1_ps(x[k]);
            for (acc, w) in acc.iter_mut().zip(w) {
                *acc = _mm256_fmadd_ps(w, x, *acc);
            }
        }
    }
    for (m, acc) in acc.into_iter().enumerate() {
        store_f32(sums, m * ROWS, acc[0]);
        store_f32(sums, m * ROWS + 8, acc[1]);
    }
}
