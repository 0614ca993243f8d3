//! Loads and stores with bounds that the compiler can see through, and tables for shuffles.

use std::arch::x86_64::*;

/// Bytes `at .. at + 32`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_32(bytes: &[u8], at: usize) -> __m256i {
    let bytes = &bytes[at..at + 32];
    // SAFETY: 32 bytes were just checked.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// Bytes `at .. at + 64`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_64(bytes: &[u8], at: usize) -> __m512i {
    let bytes = &bytes[at..at + 64];
    // SAFETY: 64 bytes were just checked.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Codes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_codes(codes: &[i8; 64]) -> __m512i {
    // SAFETY: there are 64 bytes.
    unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) }
}

/// Codes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_codes(codes: &mut [i8; 64], value: __m512i) {
    // SAFETY: there are 64 bytes.
    unsafe { _mm512_storeu_si512(codes.as_mut_ptr().cast(), value) }
}

/// Bytes `at .. at + 64`; past the caches, if `stream` and where the address allows it.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_64(bytes: &mut [u8], at: usize, value: __m512i, stream: bool) {
    let bytes = &mut bytes[at..at + 64];
    if stream && is_aligned(bytes) {
        let parts: *mut __m128i = bytes.as_mut_ptr().cast();
        // SAFETY: four times 16 bytes, at a multiple of 16.
        unsafe {
            _mm_stream_si128(parts, _mm512_castsi512_si128(value));
            _mm_stream_si128(parts.add(1), _mm512_extracti32x4_epi32::<1>(value));
            _mm_stream_si128(parts.add(2), _mm512_extracti32x4_epi32::<2>(value));
            _mm_stream_si128(parts.add(3), _mm512_extracti32x4_epi32::<3>(value));
        }
    } else {
        // SAFETY: 64 bytes were just checked.
        unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), value) }
    }
}

/// The lower 48 bytes of a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn store_48(bytes: &mut [u8; 48], value: __m512i) {
    // SAFETY: the mask has the 48 bits of the 48 bytes.
    unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), (1 << 48) - 1, value) }
}

/// Whether what begins there can be streamed: 16 bytes at a time are enough, since the
/// processor joins them to lines.
fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().addr().is_multiple_of(16)
}

/// Floats `at .. at + 16`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_f32(x: &[f32], at: usize) -> __m512 {
    let x = &x[at..at + 16];
    // SAFETY: 16 floats were just checked.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

/// Sixteen floats.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn to_array(value: __m512) -> [f32; 16] {
    let mut array = [0.0; 16];
    // SAFETY: the array has 16 floats.
    unsafe { _mm512_storeu_ps(array.as_mut_ptr(), value) };
    array
}

/// Sixteen floats into a slice at `at .. at + 16`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_f32(x: &mut [f32], at: usize, value: __m512) {
    let x = &mut x[at..at + 16];
    // SAFETY: 16 floats were just checked.
    unsafe { _mm512_storeu_ps(x.as_mut_ptr(), value) }
}

/// A table of 64 places for a shuffle of bytes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn places(table: &[u8; 64]) -> __m512i {
    load_64(table, 0)
}
