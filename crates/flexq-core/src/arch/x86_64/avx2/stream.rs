//! Few rows of activations: weights pass through once, four rows side by side.
//!
//! Every block of 128 columns of the four rows is unpacked in registers and multiplied
//! with each row of activations; the four integer sums of a segment share a vector, in
//! which they are scaled and added from left to right as the definition asks.

use std::arch::x86_64::*;
use std::array::from_fn;

use super::convert::from_f32;
use super::dot::{dot_two, scales_4, sum_halves, widen};
use super::memory::load_codes;
use super::unpack::{BLOCK, unpack_32};
use crate::arch::{ACTIVATION_GROUP, MAX_STRIPE, QuantizedRows, Stripe, Weights};

/// Rows of activations up to which this beats [`tile`](super::tile).
pub(super) const MAX_ROWS: usize = 4;

/// Weight rows side by side.
const SIDE: usize = 4;

/// How far ahead of the loads memory is asked for, in bytes.
const AHEAD: usize = 1024;

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn multiply(w: &Weights<'_>, x: &QuantizedRows, out: &mut Stripe<'_>) {
    match w.segment_width() {
        16 => multiply_segments::<1, 2>(w, x, out),
        32 => multiply_segments::<1, 1>(w, x, out),
        64 => multiply_segments::<2, 1>(w, x, out),
        _ => multiply_segments::<4, 1>(w, x, out),
    }
}

/// `V`: vectors of 32 codes multiplied together; `S`: segments that they hold.
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_segments<const V: usize, const S: usize>(
    w: &Weights<'_>,
    x: &QuantizedRows,
    out: &mut Stripe<'_>,
) {
    match x.rows {
        0 => {}
        1 => multiply_rows::<V, S, 1>(w, x, out),
        2 => multiply_rows::<V, S, 2>(w, x, out),
        3 => multiply_rows::<V, S, 3>(w, x, out),
        _ => multiply_rows::<V, S, 4>(w, x, out),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_rows<const V: usize, const S: usize, const M: usize>(
    w: &Weights<'_>,
    x: &QuantizedRows,
    out: &mut Stripe<'_>,
) {
    let columns = out.columns();
    let mut y = [[0.0f32; MAX_STRIPE]; M];
    for n in columns.clone().step_by(SIDE) {
        let row = |r: usize| (n + r).min(columns.end - 1);
        let packed: [&[u8]; SIDE] = from_fn(|r| w.packed_row(row(r)));
        let scales: [&[u8]; SIDE] = from_fn(|r| w.scales_row(row(r)));
        let mut sums = [_mm_setzero_ps(); M];
        let whole = w.columns / 128;
        for b in 0..whole {
            for packed in packed {
                _mm_prefetch::<_MM_HINT_T0>(packed.as_ptr().wrapping_add(BLOCK * b + AHEAD).cast());
            }
            let mut blocks = packed;
            for block in &mut blocks {
                *block = &block[BLOCK * b..][..BLOCK];
            }
            add_block::<V, S, M>(w, x, b, blocks, scales, &mut sums);
        }
        if !w.columns.is_multiple_of(128) {
            let padded = packed.map(|packed| pad(&packed[BLOCK * whole..]));
            add_block::<V, S, M>(
                w,
                x,
                whole,
                padded.each_ref().map(<[u8; BLOCK]>::as_slice),
                scales,
                &mut sums,
            );
        }
        for (y, sums) in y.iter_mut().zip(sums) {
            let mut lanes = [0.0f32; SIDE];
            // SAFETY: four lanes fit the array.
            unsafe { _mm_storeu_ps(lanes.as_mut_ptr(), sums) };
            let first = n - columns.start;
            let count = SIDE.min(columns.end - n);
            y[first..first + count].copy_from_slice(&lanes[..count]);
        }
    }
    let dtype = out.dtype();
    for (m, y) in y.iter().enumerate() {
        from_f32(dtype, &y[..columns.len()], out.row_mut(m));
    }
}

/// A last, shorter block, padded to the length of a whole one. Activations are padded
/// with zeros, so its codes do not matter.
pub(super) fn pad(packed: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..packed.len()].copy_from_slice(packed);
    block
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_block<const V: usize, const S: usize, const M: usize>(
    w: &Weights<'_>,
    x: &QuantizedRows,
    b: usize,
    packed: [&[u8]; SIDE],
    scales: [&[u8]; SIDE],
    sums: &mut [__m128; M],
) {
    let blocks = x.stride / ACTIVATION_GROUP;
    let segments = 4 / V * S;
    let width = w.scale_width();
    let mut codes: [&[i8]; M] = [&[]; M];
    for (m, codes) in codes.iter_mut().enumerate() {
        *codes = &x.codes[m * x.stride + 128 * b..][..128];
    }
    for step in 0..4 / V {
        let mut dots = [[_mm256_setzero_si256(); SIDE]; M];
        for r in 0..SIDE {
            let mut unpacked = [_mm256_setzero_si256(); V];
            for (v, unpacked) in unpacked.iter_mut().enumerate() {
                *unpacked = unpack_32(packed[r], step * V + v);
            }
            for m in 0..M {
                dots[m][r] = dot::<V>(unpacked, codes[m], step * V);
            }
        }
        let mut sums_of_codes = [[_mm_setzero_si128(); M]; 2];
        for (m, dots) in dots.into_iter().enumerate() {
            let [lower, upper] = sum_halves(dots);
            sums_of_codes[0][m] = if S == 1 { _mm_add_epi32(lower, upper) } else { lower };
            sums_of_codes[1][m] = upper;
        }
        for (i, sums_of_codes) in sums_of_codes.iter().enumerate().take(S) {
            let s = step * S + i;
            // past the end of a row, dots are zero and any scale does
            let scale = (128 * b + 128 / segments * s) / width;
            let mut bits = [0; SIDE];
            for (bits, scales) in bits.iter_mut().zip(scales) {
                *bits = w.scale_at(scales, scale);
            }
            let w_scales = scales_4(w.scale_type, bits);
            for m in 0..M {
                let offset = _mm_set1_epi32(x.offsets[(m * blocks + b) * segments + s]);
                let dot = _mm_cvtepi32_ps(_mm_add_epi32(sums_of_codes[m], offset));
                let scale = _mm_mul_ps(_mm_set1_ps(x.scales[m * blocks + b]), w_scales);
                sums[m] = _mm_add_ps(sums[m], _mm_mul_ps(scale, dot));
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
