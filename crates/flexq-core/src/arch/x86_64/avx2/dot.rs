//! Integer products of unsigned codes with signed activations.
//!
//! A byte product pair is at most `63 * 127 * 2 = 16002`, so two pairs still fit 16 bits.

use std::arch::x86_64::*;

use crate::scheme::ScaleType;

/// Products of two vectors of codes, summed in 16 bits: every lane holds four.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn dot_two(w: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
    _mm256_add_epi16(_mm256_maddubs_epi16(w[0], x[0]), _mm256_maddubs_epi16(w[1], x[1]))
}

/// Neighbouring 16-bit lanes, summed in 32 bits.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn widen(x: __m256i) -> __m256i {
    _mm256_madd_epi16(x, _mm256_set1_epi16(1))
}

/// The sums of the lower and of the upper lanes of each of four vectors.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sum_halves(x: [__m256i; 4]) -> [__m128i; 2] {
    let halves = _mm256_hadd_epi32(_mm256_hadd_epi32(x[0], x[1]), _mm256_hadd_epi32(x[2], x[3]));
    [_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves)]
}

/// Bits of scales to f32.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn scales_8(scale_type: ScaleType, bits: [u16; 8]) -> __m256 {
    // SAFETY: the array has sixteen bytes.
    let bits = unsafe { _mm_loadu_si128(bits.as_ptr().cast()) };
    match scale_type {
        ScaleType::F16 | ScaleType::Pair => _mm256_cvtph_ps(bits),
        ScaleType::BF16 => _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits))),
    }
}

/// Bits of scales to f32.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn scales_4(scale_type: ScaleType, bits: [u16; 4]) -> __m128 {
    let bits = _mm_setr_epi16(bits[0] as i16, bits[1] as i16, bits[2] as i16, bits[3] as i16, 0, 0, 0, 0);
    match scale_type {
        ScaleType::F16 | ScaleType::Pair => _mm_cvtph_ps(bits),
        ScaleType::BF16 => _mm_castsi128_ps(_mm_slli_epi32::<16>(_mm_cvtepu16_epi32(bits))),
    }
}
