//! Floats of any type to f32 and back, a vector or two at a time.

use std::arch::x86_64::*;

use super::memory::{load_32, load_64};
use crate::arch::x86_64::avx2::convert::Source;
use crate::dtype::FloatType;
use crate::scheme::ScaleType;

/// Elements `16 i .. 16 i + 16` in order.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_16<S: Source>(src: &[u8], i: usize) -> __m512 {
    match S::DTYPE {
        FloatType::F32 => _mm512_castsi512_ps(load_64(src, 64 * i)),
        FloatType::F16 => _mm512_cvtph_ps(load_32(src, 32 * i)),
        FloatType::BF16 => widen_bf16(load_32(src, 32 * i)),
    }
}

/// Elements `32 i .. 32 i + 32` in the order that is quickest: [`place_of`] tells.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_pair<S: Source>(src: &[u8], i: usize) -> (__m512, __m512) {
    match S::DTYPE {
        FloatType::F32 | FloatType::F16 => (load_16::<S>(src, 2 * i), load_16::<S>(src, 2 * i + 1)),
        FloatType::BF16 => {
            let w = load_64(src, 64 * i);
            let odd = _mm512_and_si512(w, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(w)), _mm512_castsi512_ps(odd))
        }
    }
}

/// Where element `i` of a pair is when the two vectors are interleaved lane by lane.
pub(super) const fn place_of(dtype: FloatType, i: usize) -> usize {
    match dtype {
        FloatType::BF16 => i,
        FloatType::F16 | FloatType::F32 => i % 16 * 2 + i / 16,
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn widen_bf16(bits: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
}

/// The bits of bfloat16, half to even, in the upper half of every lane; below is whatever.
/// `x` is no NaN.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn round_bf16(x: __m512) -> __m512i {
    let bits = _mm512_castps_si512(x);
    let even = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), even)
}

/// Scales of the stored type to f32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn from_scale_bits(scale_type: ScaleType, bits: __m256i) -> __m512 {
    match scale_type {
        ScaleType::F16 | ScaleType::Pair => _mm512_cvtph_ps(bits),
        ScaleType::BF16 => widen_bf16(bits),
    }
}

/// Scales, none of them NaN, rounded to the stored type.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn to_scale_bits(scale_type: ScaleType, scales: __m512) -> __m256i {
    match scale_type {
        ScaleType::F16 | ScaleType::Pair => _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(scales),
        ScaleType::BF16 => _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(round_bf16(scales))),
    }
}
