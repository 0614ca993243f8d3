//! The `mse` search without the candidates that cannot win.
//!
//! The error of a candidate is a sum of squares, and no rounding lets a sum of numbers that
//! are not negative fall below what two of them sum to. So the squares of the least and the
//! greatest element bound it from below: where those are clamped far, the rest need not be
//! looked at. The candidates that clamp nothing come first; they are the cheaper ones, and
//! what they reach excludes many of the others.

use std::arch::x86_64::*;

use super::convert::{from_scale_bits, load_16, to_scale_bits};
use super::memory::{load_f32, store_f32, to_array};
use crate::arch::scalar::{self, MSE_FACTORS};
use crate::arch::x86_64::avx2::convert::Source;
use crate::scheme::ScaleType;

/// Candidates tried in one pass over the group: those that are left are mostly six or
/// fewer, with clamping and without.
const TOGETHER: usize = 6;

/// The stored bits of the first candidate of least squared error; `scale` is the first
/// candidate before rounding. `floats` is memory to work in.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,bmi2")]
pub(super) fn search<S: Source>(scale_type: ScaleType, scale: f32, src: &[u8], floats: &mut Vec<f32>) -> u16 {
    let ends = widen::<S>(src, floats);

    // a candidate in each lane
    let exact = _mm512_mul_ps(_mm512_set1_ps(scale), load_f32(&MSE_FACTORS, 0));
    let bits = to_scale_bits(scale_type, exact);
    let candidates = from_scale_bits(scale_type, bits);
    let base = _mm512_broadcastss_ps(_mm512_castps512_ps128(candidates));
    let ratio = _mm512_div_ps(candidates, base);
    let weights = _mm512_mul_ps(ratio, ratio);
    let reciprocals = _mm512_div_ps(_mm512_set1_ps(1.0), candidates);

    // candidates that clamp low, or high; what is NaN is in both
    let (mut low, mut high) = (0, 0);
    let mut bound = _mm512_setzero_ps();
    for end in ends {
        let t = _mm512_mul_ps(end, reciprocals);
        low |= _mm512_cmp_ps_mask::<_CMP_NGE_UQ>(t, _mm512_set1_ps(-32.5));
        high |= _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(t, _mm512_set1_ps(31.5));
        let d = rest::<2>(t);
        bound = _mm512_add_ps(bound, _mm512_mul_ps(d, d));
    }
    let bounds = _mm512_mul_ps(bound, weights);

    let infinity = _mm512_set1_ps(f32::INFINITY);
    let (mut errors, mut best) = (infinity, infinity);
    let mut left = [!(low | high), low | high];
    while left != [0; 2] {
        let left = if left[0] == 0 { &mut left[1] } else { &mut left[0] };
        // the lowest bits that are set
        let chosen = _pdep_u32((1 << TOGETHER) - 1, u32::from(*left)) as __mmask16;
        *left &= !chosen;
        let reciprocals = to_array(_mm512_maskz_compress_ps(chosen, reciprocals));
        let sums = if chosen & high != 0 {
            squared_errors::<2>(floats, &reciprocals)
        } else if chosen & low != 0 {
            squared_errors::<1>(floats, &reciprocals)
        } else {
            squared_errors::<0>(floats, &reciprocals)
        };
        let sums = _mm512_mul_ps(_mm512_maskz_expand_ps(chosen, sums), weights);
        // never NaN
        let finite = _mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(chosen, sums, infinity);
        errors = _mm512_mask_mov_ps(errors, finite, sums);
        best = _mm512_set1_ps(_mm512_reduce_min_ps(errors));
        *left &= _mm512_cmp_ps_mask::<_CMP_LE_OQ>(bounds, best);
    }
    let first = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(errors, best).trailing_zeros();
    let mut stored = [0; 16];
    // SAFETY: there are 32 bytes.
    unsafe { _mm256_storeu_si256(stored.as_mut_ptr().cast(), bits) };
    stored[first as usize]
}

/// `src` as f32, padded with zeros to a multiple of 16, and its least and its greatest
/// element, or zero, each in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn widen<S: Source>(src: &[u8], floats: &mut Vec<f32>) -> [__m512; 2] {
    let count = src.len() / S::DTYPE.size();
    floats.resize(count.next_multiple_of(16), 0.0);
    if !count.is_multiple_of(16) {
        let tail = &mut floats[count / 16 * 16..];
        tail.fill(0.0);
        scalar::to_f32(S::DTYPE, &src[count / 16 * 16 * S::DTYPE.size()..], &mut tail[..count % 16]);
    }
    let (mut low, mut high) = (_mm512_setzero_ps(), _mm512_setzero_ps());
    for i in 0..floats.len() / 16 {
        let w = if i < count / 16 { load_16::<S>(src, i) } else { load_f32(floats, 16 * i) };
        store_f32(floats, 16 * i, w);
        low = _mm512_min_ps(low, w);
        high = _mm512_max_ps(high, w);
    }
    [_mm512_set1_ps(_mm512_reduce_min_ps(low)), _mm512_set1_ps(_mm512_reduce_max_ps(high))]
}

/// The squared errors of the first [`TOGETHER`] scales, whose reciprocals are given, in
/// units of the squared scales; one in each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn squared_errors<const CLAMP: u8>(w: &[f32], reciprocals: &[f32; 16]) -> __m512 {
    let mut sums = [_mm512_setzero_ps(); TOGETHER];
    for w in w.chunks_exact(16) {
        let w = load_f32(w, 0);
        for (sum, &reciprocal) in sums.iter_mut().zip(reciprocals) {
            let d = rest::<CLAMP>(_mm512_mul_ps(w, _mm512_set1_ps(reciprocal)));
            *sum = _mm512_add_ps(*sum, _mm512_mul_ps(d, d));
        }
    }
    add_lanes(sums)
}

/// The sums of the lanes of each vector: the upper half of the lanes is added to the lower
/// until one is left.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_lanes([a, b, c, d, e, f]: [__m512; TOGETHER]) -> __m512 {
    // parts of 128 bits: a0 a1 b0 b1 + a2 a3 b2 b3, then a0 b0 c0 d0 + a1 b1 c1 d1
    let halve = |x, y| _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(x, y), _mm512_shuffle_f32x4::<0xee>(x, y));
    let quarter =
        |x, y| _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(x, y), _mm512_shuffle_f32x4::<0xdd>(x, y));
    let (ab, cd, ef) = (halve(a, b), halve(c, d), halve(e, f));
    let (abcd, ef) = (quarter(ab, cd), quarter(ef, ef));
    // in every part, two elements of each
    let pairs = _mm512_add_ps(_mm512_shuffle_ps::<0x44>(abcd, ef), _mm512_shuffle_ps::<0xee>(abcd, ef));
    let sums = _mm512_add_ps(pairs, _mm512_movehdup_ps(pairs));
    _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 2, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), sums)
}

/// `t - clamp(rne(t), -32, 31)`: what `t` is off an integer by, or off a limit beyond it.
/// `CLAMP` tells how many of the limits, the lower one first, `t` may be beyond.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn rest<const CLAMP: u8>(t: __m512) -> __m512 {
    let mut d = _mm512_reduce_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(t);
    if CLAMP > 0 {
        d = _mm512_min_ps(d, _mm512_add_ps(t, _mm512_set1_ps(32.0)));
    }
    if CLAMP > 1 {
        d = _mm512_max_ps(d, _mm512_sub_ps(t, _mm512_set1_ps(31.0)));
    }
    d
}
