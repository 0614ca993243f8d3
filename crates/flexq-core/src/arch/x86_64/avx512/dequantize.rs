//! A packed row to floats.

use std::arch::x86_64::*;

use super::convert::{from_scale_bits, place_of, round_bf16};
use super::memory::{places, store_64};
use super::unpack::{BLOCK, block, unpack_64};
use crate::arch::x86_64::avx2::convert::{BF16, F16, F32, Source};
use crate::arch::{Scratch, scalar};
use crate::dtype::FloatType;
use crate::scheme::{Group, ScaleType, Scheme};

/// Elements made at a time.
const STEP: usize = 128;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
pub(super) fn dequantize_row(
    scheme: &Scheme,
    packed: &[u8],
    scales: &[u8],
    dtype: FloatType,
    dst: &mut [u8],
    scratch: &mut Scratch,
) {
    let scales_2 = scales.as_chunks().0;
    let done = match dtype {
        FloatType::F32 => dequantize::<F32>(scheme, packed, scales_2, dst),
        FloatType::F16 => dequantize::<F16>(scheme, packed, scales_2, dst),
        FloatType::BF16 => dequantize::<BF16>(scheme, packed, scales_2, dst),
    };
    if !done {
        scalar::dequantize_row(scheme, packed, scales, dtype, dst, scratch);
    }
}

/// `false` when a scale is not finite.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
fn dequantize<S: Source>(scheme: &Scheme, packed: &[u8], scales: &[[u8; 2]], dst: &mut [u8]) -> bool {
    let size = S::DTYPE.size();
    let infinity = match scheme.scale_type {
        ScaleType::F16 | ScaleType::Pair => 0x7c00,
        ScaleType::BF16 => 0x7f80,
    };
    if scales.iter().any(|&scale| u16::from_le_bytes(scale) & infinity == infinity) {
        return false;
    }
    let group_bits = match scheme.group {
        Group::Columns(columns) => columns.trailing_zeros(),
        Group::Row => usize::BITS - 1,
    };
    let scale = |column: usize| {
        // past the end of the row there is no group, nor any element
        let bits = scales.get(column >> group_bits).map_or(0, |&scale| u16::from_le_bytes(scale));
        _mm256_set1_epi16(bits.cast_signed())
    };
    let mut padded = [0; BLOCK];
    for (b, dst) in dst.chunks_mut(STEP * size).enumerate() {
        let packed = block(packed, b, &mut padded);
        let column = STEP * b;
        let scales = [scale(column), scale(column + 32), scale(column + 64), scale(column + 96)];
        if dst.len() == STEP * size {
            dequantize_block::<S>(scheme.scale_type, packed, scales, dst);
        } else {
            let mut floats = [0; STEP * 4];
            let floats = &mut floats[..STEP * size];
            dequantize_block::<S>(scheme.scale_type, packed, scales, floats);
            dst.copy_from_slice(&floats[..dst.len()]);
        }
    }
    true
}

/// 128 elements, each quarter with its scale.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
fn dequantize_block<S: Source>(
    scale_type: ScaleType,
    packed: &[u8; BLOCK],
    scales: [__m256i; 4],
    dst: &mut [u8],
) {
    for (half, scales) in scales.as_chunks::<2>().0.iter().enumerate() {
        let codes = unpack_64(packed, half);
        for (j, &scale) in scales.iter().enumerate() {
            let scale = from_scale_bits(scale_type, scale);
            let mut both = [_mm512_setzero_ps(); 2];
            for (i, floats) in both.iter_mut().enumerate() {
                let order = if S::DTYPE == FloatType::BF16 {
                    const { &orders(FloatType::BF16) }
                } else {
                    const { &orders(FloatType::F32) }
                };
                let lanes = _mm512_permutexvar_epi8(places(&order[2 * j + i]), codes);
                // the code in the lowest bits of 2^23, whose last place is 1
                let magic = _mm512_set1_epi32(0x4b00_0000);
                let code = _mm512_ternarylogic_epi32::<0xea>(lanes, _mm512_set1_epi32(63), magic);
                let code = _mm512_sub_ps(_mm512_castsi512_ps(code), _mm512_set1_ps(8_388_608.0 + 32.0));
                *floats = _mm512_mul_ps(code, scale);
            }
            store_pair::<S>(dst, 2 * half + j, both);
        }
    }
}

/// Elements `32 i .. 32 i + 32`, half to even.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn store_pair<S: Source>(dst: &mut [u8], i: usize, [a, b]: [__m512; 2]) {
    match S::DTYPE {
        FloatType::F32 => {
            store_64(dst, 128 * i, _mm512_castps_si512(a));
            store_64(dst, 128 * i + 64, _mm512_castps_si512(b));
        }
        FloatType::F16 => {
            let a = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a);
            let b = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(b);
            store_64(dst, 64 * i, _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b));
        }
        FloatType::BF16 => {
            let (even, odd) = (round_bf16(a), round_bf16(b));
            let even = _mm512_srli_epi32::<16>(even);
            store_64(dst, 64 * i, _mm512_mask_blend_epi16(0xaaaa_aaaa, even, odd));
        }
    }
}

/// For four vectors of 16 lanes, where the codes of their elements are among 64: the
/// vectors of a pair are in the order of [`place_of`].
const fn orders(dtype: FloatType) -> [[u8; 64]; 4] {
    let mut places = [[0; 64]; 4];
    let mut i = 0;
    while i < 64 {
        let place = place_of(dtype, i % 32);
        places[i / 32 * 2 + place % 2][place / 2 * 4] = i as u8;
        i += 1;
    }
    places
}
