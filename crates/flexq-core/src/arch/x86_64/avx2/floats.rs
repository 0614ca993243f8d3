//! Products with f32 activations.

use std::arch::x86_64::*;
use std::array::from_fn;

use super::convert::from_f32;
use super::memory::{load_f32, load_halves, store_f32};
use super::panel::ROWS;
use super::rows::{Rows, prefetch};
use super::unpack::{BLOCK, block};
use crate::arch::{Buffer, MAX_STRIPE, Scratch, Stripe, Weights, scalar};

/// Rows of activations up to which weights stream through registers.
const MAX_STREAMED: usize = 8;
/// Weight rows side by side, with which activations are read into L1 once.
const SIDE: usize = 8;
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
        16 => multiply_segments::<1, 2>(w, x, out, scratch),
        32 => multiply_segments::<1, 1>(w, x, out, scratch),
        64 => multiply_segments::<2, 1>(w, x, out, scratch),
        _ => multiply_segments::<4, 1>(w, x, out, scratch),
    }
}

/// Few rows are padded with zeros to whole blocks of 128, and every 32 columns reordered so
/// that those of the same place in their four come together (0 4 8 .. 28, 1 5 .. 29 and so
/// on): codes of the same place lie alike in their 24 bits. They are divided by what codes of that place
/// come multiplied with, see [`signed_codes`].
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
                arranged[k % 4 * 8 + k / 4] = x / FACTORS[k % 4];
            }
        }
    }
}

/// `V`: vectors of 32 codes multiplied together; `S`: segments that they hold.
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_segments<const V: usize, const S: usize>(
    w: &Weights<'_>,
    x: &[f32],
    out: &mut Stripe<'_>,
    scratch: &mut Scratch,
) {
    match out.rows() {
        0 => {}
        1 => multiply_rows::<V, S, 1>(w, x, out, scratch),
        2 => multiply_rows::<V, S, 2>(w, x, out, scratch),
        3 => multiply_rows::<V, S, 3>(w, x, out, scratch),
        4 => multiply_rows::<V, S, 4>(w, x, out, scratch),
        5 => multiply_rows::<V, S, 5>(w, x, out, scratch),
        6 => multiply_rows::<V, S, 6>(w, x, out, scratch),
        7 => multiply_rows::<V, S, 7>(w, x, out, scratch),
        _ => multiply_rows::<V, S, MAX_STREAMED>(w, x, out, scratch),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_rows<const V: usize, const S: usize, const M: usize>(
    w: &Weights<'_>,
    x: &[f32],
    out: &mut Stripe<'_>,
    scratch: &mut Scratch,
) {
    let columns = out.columns();
    let stride = w.columns.next_multiple_of(128);
    let in_block = 4 / V * S * SIDE;
    let scales = &mut scratch.scales;
    scales.resize(stride / 128 * in_block);
    let mut y = [[0.0f32; MAX_STRIPE]; M];
    for n in columns.clone().step_by(SIDE) {
        let rows = Rows { n, end: columns.end };
        let packed: [&[u8]; SIDE] = from_fn(|r| w.packed_row(rows.row(r)));
        rows.scales::<SIDE>(w, 0, w.segment_width(), scales);
        let mut sums = [[_mm256_setzero_ps(); M]; SIDE];
        for (b, scales) in scales.chunks_exact(in_block).enumerate() {
            let mut x_blocks: [&[f32]; M] = [&[]; M];
            for (m, block) in x_blocks.iter_mut().enumerate() {
                *block = &x[m * stride + 128 * b..][..128];
            }
            for (r, (sums, packed)) in sums.iter_mut().zip(packed).enumerate() {
                prefetch(packed, b, AHEAD, (SIDE - 1) * packed.len());
                add_block::<V, S, M>(block(packed, b, &mut [0; BLOCK]), r, scales, x_blocks, sums);
            }
        }
        for (r, sums) in sums.into_iter().enumerate().take(columns.end - n) {
            for (y, sum) in y.iter_mut().zip(sums) {
                y[n - columns.start + r] = sum_lanes(sum);
            }
        }
    }
    let dtype = out.dtype();
    for (m, y) in y.iter().enumerate() {
        from_f32(dtype, &y[..columns.len()], out.row_mut(m));
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_block<const V: usize, const S: usize, const M: usize>(
    packed: &[u8; BLOCK],
    r: usize,
    scales: &[f32],
    x: [&[f32]; M],
    sums: &mut [__m256; M],
) {
    for s in 0..4 / V {
        // sums that do not wait for each other, at least four
        let chains = if M < 4 { 2 } else { 1 };
        let mut parts = [[_mm256_setzero_ps(); 2]; M];
        for v in s * V..s * V + V {
            for (i, codes) in signed_codes(packed, v).into_iter().enumerate() {
                for (parts, x) in parts.iter_mut().zip(x) {
                    let part = &mut parts[i % chains];
                    *part = _mm256_fmadd_ps(codes, load_f32(x, 32 * v + 8 * i), *part);
                }
            }
        }
        let scale = |i: usize| _mm_set1_ps(scales[(s * S + i) * SIDE + r]);
        // the lower lanes hold the first sixteen columns of every vector, see the load of `signed_codes`
        let scale = _mm256_set_m128(scale(S - 1), scale(0));
        for (sum, parts) in sums.iter_mut().zip(parts) {
            *sum = _mm256_fmadd_ps(_mm256_add_ps(parts[0], parts[1]), scale, *sum);
        }
    }
}

/// What [`signed_codes`] multiplies codes with: their place in 24 bits, but the last's.
const FACTORS: [f32; 4] = [1.0, 64.0, 4096.0, 1.0];

/// Codes `32 v .. 32 v + 32` of a block as f32; vector `i` holds those of place `i` in
/// their four, times `FACTORS[i]`.
///
/// # How
/// Every lane gets the three bytes of four codes and the upper byte of 2^23. All but one code cut out make
/// a number larger than 2^23 by the code in its place; that is subtracted, and 32 in that place. The last code, which
/// reaches into the exponent, is moved down before.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn signed_codes(block: &[u8; BLOCK], v: usize) -> [__m256; 4] {
    const TWO_23: i32 = 0x4b00_0000;
    let (packed, shift) =
        if v == 3 { (load_halves(block, 72, 80), 4) } else { (load_halves(block, 24 * v, 24 * v + 12), 0) };
    let s = shift;
    #[rustfmt::skip]
    let triples = _mm256_setr_epi8(
        0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1,
        s, s + 1, s + 2, -1, s + 3, s + 4, s + 5, -1, s + 6, s + 7, s + 8, -1, s + 9, s + 10, s + 11, -1,
    );
    let (quads, two_23) = (_mm256_shuffle_epi8(packed, triples), _mm256_set1_epi32(TWO_23));
    let last = _mm256_or_si256(_mm256_srli_epi32::<18>(quads), two_23);
    let quads = _mm256_or_si256(quads, two_23);
    let mut codes = [_mm256_castsi256_ps(last); 4];
    for (i, codes) in codes.iter_mut().enumerate() {
        if i < 3 {
            let place = _mm256_set1_epi32(TWO_23 | 63 << (6 * i));
            *codes = _mm256_castsi256_ps(_mm256_and_si256(quads, place));
        }
        *codes = _mm256_sub_ps(*codes, _mm256_set1_ps(f32::from_bits(TWO_23 as u32) + 32.0 * FACTORS[i]));
    }
    codes
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
