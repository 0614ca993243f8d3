//! Codes to the 6-bit stream, 32 at a time.

use std::arch::x86_64::*;

use super::memory::{load_codes, store_24};
use crate::arch::scalar;

/// Packs 32 codes given as 16-bit integers, clamping them to -32..=31, into 24 bytes at
/// the bottom of the vector.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn pack_32(low: __m256i, high: __m256i) -> __m256i {
    // eight-byte pieces 0 2 | 1 3 after the pack
    let codes = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(low, high));
    let codes = _mm256_max_epi8(_mm256_min_epi8(codes, _mm256_set1_epi8(31)), _mm256_set1_epi8(-32));
    pack_bytes(codes)
}

/// Packs 32 codes in -32..=31.
#[inline]
#[target_feature(enable = "avx2")]
fn pack_bytes(codes: __m256i) -> __m256i {
    let codes = _mm256_add_epi8(codes, _mm256_set1_epi8(32));
    // u0 + 64 u1 in every 16 bits, then four codes in every 32
    let pairs = _mm256_maddubs_epi16(codes, _mm256_set1_epi16(0x4001));
    let quads = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x1000_0001));
    let dense = _mm256_setr_epi8(
        0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1, //
        0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1,
    );
    let halves = _mm256_shuffle_epi8(quads, dense);
    _mm256_permutevar8x32_epi32(halves, _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 7, 7))
}

#[target_feature(enable = "avx2")]
pub(super) fn pack_row(codes: &[i8], packed: &mut [u8]) {
    let whole = codes.len() / 32;
    for i in 0..whole {
        store_24(packed, 24 * i, pack_bytes(load_codes(codes, 32 * i)));
    }
    scalar::pack_row(&codes[32 * whole..], &mut packed[24 * whole..]);
}
