//! Few rows of activations: weights pass through once, eight rows side by side.
//!
//! Every block of 128 columns of the eight rows is unpacked in registers and multiplied
//! with each row of activations; the eight integer sums of a segment end in one vector, in
//! which they are scaled and added from left to right as the definition asks.

use std::arch::x86_64::*;
use std::array::from_fn;

use super::convert::from_f32;
use super::dot::{dot_two, sum_halves, widen};
use super::memory::{load_codes, load_f32, store_f32};
use super::rows::{Rows, prefetch};
use super::unpack::{BLOCK, block, unpack_32};
use crate::arch::{ACTIVATION_GROUP, MAX_STRIPE, QuantizedRows, Scratch, Stripe, Weights};

/// Rows of activations up to which this beats [`tile`](super::tile).
pub(super) const MAX_ROWS: usize = 4;

/// Weight rows side by side.
const SIDE: usize = 8;

/// How far ahead of the loads memory is asked for, in bytes.
const AHEAD: usize = 1024;

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn multiply(w: &Weights<'_>, x: &QuantizedRows, out: &mut Stripe<'_>, scratch: &mut Scratch) {
    match x.segment {
        16 => multiply_segments::<1, 2>(w, x, out, scratch),
        32 => multiply_segments::<1, 1>(w, x, out, scratch),
        64 => multiply_segments::<2, 1>(w, x, out, scratch),
        _ => multiply_segments::<4, 1>(w, x, out, scratch),
    }
}

/// `V`: vectors of 32 codes multiplied together; `S`: segments that they hold.
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_segments<const V: usize, const S: usize>(
    w: &Weights<'_>,
    x: &QuantizedRows,
    out: &mut Stripe<'_>,
    scratch: &mut Scratch,
) {
    match x.rows {
        0 => {}
        1 => multiply_rows::<V, S, 1>(w, x, out, scratch),
        2 => multiply_rows::<V, S, 2>(w, x, out, scratch),
        3 => multiply_rows::<V, S, 3>(w, x, out, scratch),
        _ => multiply_rows::<V, S, MAX_ROWS>(w, x, out, scratch),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_rows<const V: usize, const S: usize, const M: usize>(
    w: &Weights<'_>,
    x: &QuantizedRows,
    out: &mut Stripe<'_>,
    scratch: &mut Scratch,
) {
    let columns = out.columns();
    let blocks = x.stride / ACTIVATION_GROUP;
    let in_block = 4 / V * S * SIDE;
    let scales = &mut scratch.scales;
    scales.resize(blocks * in_block);
    let mut y = [[0.0f32; MAX_STRIPE]; M];
    for n in columns.clone().step_by(SIDE) {
        let rows = Rows { n, end: columns.end };
        let packed: [&[u8]; SIDE] = from_fn(|r| w.packed_row(rows.row(r)));
        rows.scales::<SIDE>(w, 0, x.segment, scales);
        let mut sums = [_mm256_setzero_ps(); M];
        for (b, scales) in scales.chunks_exact(in_block).enumerate() {
            for row in packed {
                prefetch(row, b, AHEAD, (SIDE - 1) * row.len());
            }
            let mut padded = [[0; BLOCK]; SIDE];
            let mut rows = [&[0; BLOCK]; SIDE];
            for ((rows, row), padded) in rows.iter_mut().zip(packed).zip(&mut padded) {
                *rows = block(row, b, padded);
            }
            add_block::<V, S, M>(x, b, rows, scales, &mut sums);
        }
        for (y, sums) in y.iter_mut().zip(sums) {
            store_f32(y, n - columns.start, sums);
        }
    }
    let dtype = out.dtype();
    for (m, y) in y.iter().enumerate() {
        from_f32(dtype, &y[..columns.len()], out.row_mut(m));
    }
}

/// Adds the products of block `b`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_block<const V: usize, const S: usize, const M: usize>(
    x: &QuantizedRows,
    b: usize,
    packed: [&[u8; BLOCK]; SIDE],
    scales: &[f32],
    sums: &mut [__m256; M],
) {
    let blocks = x.stride / ACTIVATION_GROUP;
    let segments = 4 / V * S;
    let mut codes: [&[i8]; M] = [&[]; M];
    for (m, codes) in codes.iter_mut().enumerate() {
        *codes = &x.codes[m * x.stride + 128 * b..][..128];
    }
    for step in 0..4 / V {
        let mut dots = [[_mm256_setzero_si256(); SIDE]; M];
        for (r, packed) in packed.iter().enumerate() {
            let mut unpacked = [_mm256_setzero_si256(); V];
            for (v, unpacked) in unpacked.iter_mut().enumerate() {
                *unpacked = unpack_32(packed, step * V + v);
            }
            for (dots, codes) in dots.iter_mut().zip(codes) {
                dots[r] = dot::<V>(unpacked, codes, step * V);
            }
        }
        for (m, dots) in dots.into_iter().enumerate() {
            for (i, total) in totals::<S>(dots).into_iter().enumerate() {
                let s = step * S + i;
                let offset = _mm256_set1_epi32(x.offsets[(m * blocks + b) * segments + s]);
                let dot = _mm256_cvtepi32_ps(_mm256_add_epi32(total, offset));
                let scale =
                    _mm256_mul_ps(_mm256_set1_ps(x.scales[m * blocks + b]), load_f32(scales, SIDE * s));
                sums[m] = _mm256_add_ps(sums[m], _mm256_mul_ps(scale, dot));
            }
        }
    }
}

/// Products of `V` vectors of codes with the activations from `32 first` on.
#[inline]
#[target_feature(enable = "avx2")]
fn dot<const V: usize>(w: [__m256i; V], x: &[i8], first: usize) -> __m256i {
    let at = |v: usize| load_codes(x, 32 * (first + v));
    if V == 1 {
        return widen(_mm256_maddubs_epi16(w[0], at(0)));
    }
    let mut sum = _mm256_setzero_si256();
    for v in (0..V).step_by(2) {
        sum = _mm256_add_epi32(sum, widen(dot_two([w[v], w[v + 1]], [at(v), at(v + 1)])));
    }
    sum
}

/// The sums of the lanes of eight vectors: of all lanes, or of the lower and of the upper ones.
#[inline]
#[target_feature(enable = "avx2")]
fn totals<const S: usize>(dots: [__m256i; SIDE]) -> [__m256i; S] {
    let [a, b, c, d, e, f, g, h] = dots;
    let (left, right) = (sum_halves([a, b, c, d]), sum_halves([e, f, g, h]));
    let lower = _mm256_permute2x128_si256::<0x20>(left, right);
    let upper = _mm256_permute2x128_si256::<0x31>(left, right);
    let mut totals = [_mm256_add_epi32(lower, upper); S];
    if S == 2 {
        totals.copy_from_slice(&[lower, upper]);
    }
    totals
}
