//! Integer products of unsigned codes with signed activations.
//!
//! A byte product pair is at most `63 * 127 * 2 = 16002`, so two pairs still fit 16 bits.

use std::arch::x86_64::*;

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

/// The sums of the lower lanes of each of four vectors, then those of the upper lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sum_halves(x: [__m256i; 4]) -> __m256i {
    _mm256_hadd_epi32(_mm256_hadd_epi32(x[0], x[1]), _mm256_hadd_epi32(x[2], x[3]))
}
