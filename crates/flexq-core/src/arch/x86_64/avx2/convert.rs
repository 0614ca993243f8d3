//! Floats to f32 and back, eight or sixteen at a time.

use std::arch::x86_64::*;

use super::memory::{load_16, load_32, load_f32, load_halves, store_32, store_f32};
use crate::arch::scalar;
use crate::dtype::FloatType;

/// A type of source elements, known when code is generated.
pub(in crate::arch::x86_64) trait Source {
    const DTYPE: FloatType;
}

pub(in crate::arch::x86_64) struct F32;
pub(in crate::arch::x86_64) struct F16;
pub(in crate::arch::x86_64) struct BF16;

impl Source for F32 {
    const DTYPE: FloatType = FloatType::F32;
}

impl Source for F16 {
    const DTYPE: FloatType = FloatType::F16;
}

impl Source for BF16 {
    const DTYPE: FloatType = FloatType::BF16;
}

/// Elements `16 i .. 16 i + 16` as f32: those at even places, those at odd places.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn load_split<S: Source>(src: &[u8], i: usize) -> (__m256, __m256) {
    match S::DTYPE {
        FloatType::F32 => {
            let a = _mm256_castsi256_ps(load_halves(src, 64 * i, 64 * i + 32));
            let b = _mm256_castsi256_ps(load_halves(src, 64 * i + 16, 64 * i + 48));
            (_mm256_shuffle_ps::<0b10_00_10_00>(a, b), _mm256_shuffle_ps::<0b11_01_11_01>(a, b))
        }
        FloatType::F16 => {
            let split = _mm256_setr_epi8(
                0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, //
                0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
            );
            let w = _mm256_shuffle_epi8(load_32(src, 32 * i), split);
            let w = _mm256_permute4x64_epi64::<0b11_01_10_00>(w);
            (_mm256_cvtph_ps(_mm256_castsi256_si128(w)), _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(w)))
        }
        FloatType::BF16 => {
            let w = load_32(src, 32 * i);
            let odd = _mm256_and_si256(w, _mm256_set1_epi32(0xffff_0000_u32 as i32));
            (_mm256_castsi256_ps(_mm256_slli_epi32::<16>(w)), _mm256_castsi256_ps(odd))
        }
    }
}

/// The largest magnitude and the largest value (or 0) of the first `16 count` elements.
/// The magnitude is infinite or NaN exactly when one of them is.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn extremes<S: Source>(src: &[u8], count: usize) -> (f32, f32) {
    match S::DTYPE {
        FloatType::F32 => {
            // floats without their sign order like integers, NaN above all
            let magnitude = _mm256_set1_epi32(0x7fff_ffff);
            let (mut largest, mut high) = (_mm256_setzero_si256(), _mm256_setzero_si256());
            for i in 0..2 * count {
                let w = load_32(src, 32 * i);
                largest = _mm256_max_epi32(largest, _mm256_and_si256(w, magnitude));
                high = _mm256_max_epi32(high, w);
            }
            (f32::from_bits(max_i32(largest)), f32::from_bits(max_i32(high)))
        }
        FloatType::F16 => {
            let (largest, high) = extremes_16(src, count);
            let both = _mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(largest) | i32::from(high) << 16));
            (_mm_cvtss_f32(both), _mm_cvtss_f32(_mm_movehdup_ps(both)))
        }
        FloatType::BF16 => {
            let (largest, high) = extremes_16(src, count);
            (f32::from_bits(u32::from(largest) << 16), f32::from_bits(u32::from(high) << 16))
        }
    }
}

/// As [`extremes`], on the bits of 16-bit floats: without their sign they order
/// like integers, NaN above all.
#[inline]
#[target_feature(enable = "avx2")]
fn extremes_16(src: &[u8], count: usize) -> (u16, u16) {
    let magnitude = _mm256_set1_epi16(0x7fff);
    let (mut largest, mut high) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    for i in 0..count {
        let w = load_32(src, 32 * i);
        largest = _mm256_max_epi16(largest, _mm256_and_si256(w, magnitude));
        high = _mm256_max_epi16(high, w);
    }
    (max_u15(largest), max_u15(high))
}

/// The largest of sixteen integers below 2^15.
#[inline]
#[target_feature(enable = "avx2")]
fn max_u15(x: __m256i) -> u16 {
    let x = _mm_max_epi16(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
    let least = _mm_minpos_epu16(_mm_xor_si128(x, _mm_set1_epi16(-1)));
    !(_mm_cvtsi128_si32(least) as u16)
}

/// The largest of eight integers that are not negative.
#[inline]
#[target_feature(enable = "avx2")]
fn max_i32(x: __m256i) -> u32 {
    let x = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
    let x = _mm_max_epi32(x, _mm_shuffle_epi32::<0b01_00_11_10>(x));
    let x = _mm_max_epi32(x, _mm_shuffle_epi32::<0b10_11_00_01>(x));
    _mm_cvtsi128_si32(x) as u32
}

/// Eight floats to f32.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn load_8(dtype: FloatType, src: &[u8], i: usize) -> __m256 {
    match dtype {
        FloatType::F32 => _mm256_castsi256_ps(load_32(src, 32 * i)),
        FloatType::F16 => _mm256_cvtph_ps(load_16(src, 16 * i)),
        FloatType::BF16 => {
            let w = _mm256_cvtepu16_epi32(load_16(src, 16 * i));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(w))
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn to_f32(dtype: FloatType, src: &[u8], dst: &mut [f32]) {
    let whole = dst.len() / 8;
    for i in 0..whole {
        store_f32(dst, 8 * i, load_8(dtype, src, i));
    }
    scalar::to_f32(dtype, &src[8 * whole * dtype.size()..], &mut dst[8 * whole..]);
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::arch::x86_64) fn from_f32(dtype: FloatType, src: &[f32], dst: &mut [u8]) {
    let whole = src.len() / 16;
    for i in 0..whole {
        store_16(dtype, dst, i, load_f32(src, 16 * i), load_f32(src, 16 * i + 8));
    }
    scalar::from_f32(dtype, &src[16 * whole..], &mut dst[16 * whole * dtype.size()..]);
}

/// Elements `16 i .. 16 i + 16` from f32, half to even.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn store_16(dtype: FloatType, dst: &mut [u8], i: usize, low: __m256, high: __m256) {
    match dtype {
        FloatType::F32 => {
            store_32(dst, 64 * i, _mm256_castps_si256(low));
            store_32(dst, 64 * i + 32, _mm256_castps_si256(high));
        }
        FloatType::F16 => {
            let low = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(low);
            let high = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(high);
            store_32(dst, 32 * i, _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high));
        }
        FloatType::BF16 => {
            let both = _mm256_packus_epi32(round_bf16(low), round_bf16(high));
            store_32(dst, 32 * i, _mm256_permute4x64_epi64::<0b11_01_10_00>(both));
        }
    }
}

/// The bits of bfloat16, half to even, in the lower half of every lane; NaN stays NaN.
#[inline]
#[target_feature(enable = "avx2")]
fn round_bf16(x: __m256) -> __m256i {
    let bits = _mm256_castps_si256(x);
    let even = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), even);
    // as the scalar conversion: a NaN is cut, and made quiet so that it cannot become infinite
    let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
    let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x);
    let chosen = _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), nan);
    _mm256_srli_epi32::<16>(_mm256_castps_si256(chosen))
}
