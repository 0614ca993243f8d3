//! A packed row to floats.
//!
//! A group has 64 values. Those of 16 bits are made once per group, as a table of lower and
//! one of upper bytes, and looked up; for f32 there is less to make than to look up.

use std::arch::x86_64::*;

use super::convert::{from_scale_bits, round_bf16};
use super::memory::{load_64, store_64};
use super::unpack::{BLOCK, block, unpack_64};
use crate::arch::x86_64::avx2::convert::{BF16, F16, F32, Source};
use crate::arch::{Out, Scratch, scalar};
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
    out: Out,
    scratch: &mut Scratch,
) {
    let groups = Groups::new(scheme, scales);
    let stream = out == Out::Streamed;
    if !groups.are_finite() {
        return scalar::dequantize_row(scheme, packed, scales, dtype, dst, out, scratch);
    }
    match dtype {
        FloatType::F32 => dequantize::<F32>(&groups, packed, dst, stream),
        FloatType::F16 => dequantize::<F16>(&groups, packed, dst, stream),
        FloatType::BF16 => dequantize::<BF16>(&groups, packed, dst, stream),
    }
}

/// The scales of a row.
struct Groups<'a> {
    scales: &'a [[u8; 2]],
    scale_type: ScaleType,
    /// Column `i` is of group `i >> shift`.
    shift: u32,
}

impl<'a> Groups<'a> {
    fn new(scheme: &Scheme, scales: &'a [u8]) -> Self {
        let shift = match scheme.group {
            Group::Columns(columns) => columns.trailing_zeros(),
            Group::Row => usize::BITS - 1,
        };
        Self { scales: scales.as_chunks().0, scale_type: scheme.scale_type, shift }
    }

    fn are_finite(&self) -> bool {
        let infinity = match self.scale_type {
            ScaleType::F16 | ScaleType::Pair => 0x7c00,
            ScaleType::BF16 => 0x7f80,
        };
        !self.scales.iter().any(|&scale| u16::from_le_bytes(scale) & infinity == infinity)
    }

    /// A scale in all lanes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn scale(&self, group: usize) -> __m512 {
        // past the end of the row there is no group, nor any element
        let bits = self.scales.get(group).map_or(0, |&scale| u16::from_le_bytes(scale));
        from_scale_bits(self.scale_type, _mm256_set1_epi16(bits.cast_signed()))
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")]
fn dequantize<S: Source>(groups: &Groups<'_>, packed: &[u8], dst: &mut [u8], stream: bool) {
    let size = S::DTYPE.size();
    let mut table = Table::new::<S>(groups, 0);
    let mut padded = [0; BLOCK];
    for (b, dst) in dst.chunks_mut(STEP * size).enumerate() {
        let packed = block(packed, b, &mut padded);
        let mut floats = [0; STEP * 4];
        let whole = dst.len() == STEP * size;
        let to = if whole { &mut dst[..] } else { &mut floats[..STEP * size] };
        for half in 0..2 {
            let codes = unpack_64(packed, half);
            let column = STEP * b + 64 * half;
            if S::DTYPE == FloatType::F32 {
                multiply(groups, codes, column, to, stream);
            } else {
                look_up::<S>(groups, &mut table, codes, column, to, stream);
            }
        }
        if !whole {
            dst.copy_from_slice(&floats[..dst.len()]);
        }
    }
}

/// 64 codes, as bytes, times their scales.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn multiply(groups: &Groups<'_>, codes: __m512i, column: usize, dst: &mut [u8], stream: bool) {
    let quarters = [
        _mm512_castsi512_si128(codes),
        _mm512_extracti32x4_epi32::<1>(codes),
        _mm512_extracti32x4_epi32::<2>(codes),
        _mm512_extracti32x4_epi32::<3>(codes),
    ];
    let scales = [groups.scale(column >> groups.shift), groups.scale((column + 32) >> groups.shift)];
    for (i, codes) in quarters.into_iter().enumerate() {
        let code = _mm512_sub_epi32(_mm512_cvtepu8_epi32(codes), _mm512_set1_epi32(32));
        let value = _mm512_castps_si512(_mm512_mul_ps(_mm512_cvtepi32_ps(code), scales[i / 2]));
        store_64(dst, (column % STEP + 16 * i) * 4, value, stream);
    }
}

/// The values of a group, of 16 bits: the byte at `q + 32` is of code `q`.
struct Table {
    group: usize,
    low: __m512i,
    high: __m512i,
}

impl Table {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn new<S: Source>(groups: &Groups<'_>, group: usize) -> Self {
        let scale = groups.scale(group);
        let codes = if S::DTYPE == FloatType::BF16 {
            const { &table_codes(FloatType::BF16) }
        } else {
            const { &table_codes(FloatType::F16) }
        };
        let mut words = [_mm512_setzero_si512(); 2];
        for (words, codes) in words.iter_mut().zip(codes) {
            let mut both = [_mm512_setzero_ps(); 2];
            for (values, codes) in both.iter_mut().zip(codes) {
                *values = _mm512_mul_ps(_mm512_castsi512_ps(load_64(codes, 0)), scale);
            }
            *words = to_words::<S>(both);
        }
        let [a, b] = words;
        let byte = _mm512_set1_epi16(0xff);
        Self {
            group,
            low: _mm512_packus_epi16(_mm512_and_si512(a, byte), _mm512_and_si512(b, byte)),
            high: _mm512_packus_epi16(_mm512_srli_epi16::<8>(a), _mm512_srli_epi16::<8>(b)),
        }
    }
}

/// f32 rounded to 16 bits, half to even, in words: in order for F16, for BF16 one of `a` and
/// one of `b` in turn.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn to_words<S: Source>([a, b]: [__m512; 2]) -> __m512i {
    if S::DTYPE == FloatType::BF16 {
        let even = _mm512_srli_epi32::<16>(round_bf16(a));
        _mm512_mask_blend_epi16(0xaaaa_aaaa, even, round_bf16(b))
    } else {
        let a = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a);
        let b = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(b);
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b)
    }
}

/// The codes, as f32, whose values [`Table::new`] packs to bytes in order: `packus` takes
/// eight words of the first and eight of the second vector in turn.
const fn table_codes(dtype: FloatType) -> [[[u8; 64]; 2]; 2] {
    let mut codes = [[[0; 64]; 2]; 2];
    let mut u = 0;
    while u < 64 {
        let (vector, word) = (u / 8 % 2, u / 16 * 8 + u % 8);
        let (part, lane) = match dtype {
            FloatType::BF16 => (word % 2, word / 2),
            _ => (word / 16, word % 16),
        };
        let bytes = (u as f32 - 32.0).to_le_bytes();
        let mut i = 0;
        while i < 4 {
            codes[vector][part][4 * lane + i] = bytes[i];
            i += 1;
        }
        u += 1;
    }
    codes
}

/// The values of 64 codes, given as bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn look_up<S: Source>(
    groups: &Groups<'_>,
    table: &mut Table,
    codes: __m512i,
    column: usize,
    dst: &mut [u8],
    stream: bool,
) {
    // so that unpacking gives the first 32 values and the last
    let codes = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), codes);
    for i in 0..2 {
        let group = (column + 32 * i) >> groups.shift;
        if group != table.group {
            *table = Table::new::<S>(groups, group);
        }
        let low = _mm512_permutexvar_epi8(codes, table.low);
        let high = _mm512_permutexvar_epi8(codes, table.high);
        let values = if i == 0 { _mm512_unpacklo_epi8(low, high) } else { _mm512_unpackhi_epi8(low, high) };
        store_64(dst, (column % STEP + 32 * i) * 2, values, stream);
    }
}
