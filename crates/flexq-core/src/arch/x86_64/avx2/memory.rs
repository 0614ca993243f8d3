//! Loads and stores with bounds that the compiler can see through.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_loadu_si128, _mm_storel_epi64, _mm_storeu_si128, _mm256_castsi128_si256,
    _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_inserti128_si256, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_storeu_ps, _mm256_storeu_si256,
};

/// Bytes `at .. at + 16`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_16(bytes: &[u8], at: usize) -> __m128i {
    let bytes = &bytes[at..at + 16];
    // SAFETY: 16 bytes were just checked.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// Bytes `at .. at + 32`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_32(bytes: &[u8], at: usize) -> __m256i {
    let bytes = &bytes[at..at + 32];
    // SAFETY: 32 bytes were just checked.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// Two runs of 16 bytes, the first in the lower half.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_halves(bytes: &[u8], low: usize, high: usize) -> __m256i {
    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(load_16(bytes, low)), load_16(bytes, high))
}

/// Codes `at .. at + 32`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_codes(codes: &[i8], at: usize) -> __m256i {
    let codes = &codes[at..at + 32];
    // SAFETY: 32 bytes were just checked.
    unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) }
}

/// Floats `at .. at + 8`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_f32(x: &[f32], at: usize) -> __m256 {
    let x = &x[at..at + 8];
    // SAFETY: 8 floats were just checked.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

/// Floats `at .. at + 8`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_f32(x: &mut [f32], at: usize, value: __m256) {
    let x = &mut x[at..at + 8];
    // SAFETY: 8 floats were just checked.
    unsafe { _mm256_storeu_ps(x.as_mut_ptr(), value) }
}

/// Bytes `at .. at + 32`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_32(bytes: &mut [u8], at: usize, value: __m256i) {
    let bytes = &mut bytes[at..at + 32];
    // SAFETY: 32 bytes were just checked.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), value) }
}

/// Bytes `at .. at + 24`, the lower ones of the vector.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_24(bytes: &mut [u8], at: usize, value: __m256i) {
    let bytes = &mut bytes[at..at + 24];
    // SAFETY: 24 bytes were just checked; the second store begins at the 17th and has 8.
    unsafe {
        _mm_storeu_si128(bytes.as_mut_ptr().cast(), _mm256_castsi256_si128(value));
        _mm_storel_epi64(bytes.as_mut_ptr().add(16).cast(), _mm256_extracti128_si256::<1>(value));
    }
}
