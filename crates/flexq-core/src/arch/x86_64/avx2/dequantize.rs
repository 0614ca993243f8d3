//! A packed row to floats.

use std::arch::x86_64::*;

use super::convert::store_16;
use super::unpack::{BLOCK, unpack_32};
use crate::arch::{Out, Scratch, scalar};
use crate::dtype::FloatType;
use crate::scheme::{Group, ScaleType, Scheme};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dequantize_row(
    scheme: &Scheme,
    packed: &[u8],
    scales: &[u8],
    dtype: FloatType,
    dst: &mut [u8],
    scratch: &mut Scratch,
) {
    let columns = dst.len() / dtype.size();
    let width = scheme.scale_width(columns);
    // a division for every scale would take longer than the rest
    let shift = if scheme.group == Group::Row { usize::BITS - 1 } else { width.trailing_zeros() };
    let scale = |column: usize| {
        let bits = scheme.scale_type.scale_at(scales, column >> shift);
        match scheme.scale_type {
            ScaleType::F16 | ScaleType::Pair => _mm256_cvtph_ps(_mm_set1_epi16(bits.cast_signed())),
            ScaleType::BF16 => _mm256_castsi256_ps(_mm256_set1_epi32(i32::from(bits) << 16)),
        }
    };
    let whole = columns / 128;
    let blocks = packed.as_chunks::<BLOCK>().0.iter().zip(dst.chunks_exact_mut(128 * dtype.size()));
    for (b, (packed, dst)) in blocks.enumerate() {
        for i in 0..4 {
            let first = scale(128 * b + 32 * i);
            let second = if width < 32 { scale(128 * b + 32 * i + 16) } else { first };
            let codes = _mm256_sub_epi8(unpack_32(packed, i), _mm256_set1_epi8(32));
            let halves = [_mm256_castsi256_si128(codes), _mm256_extracti128_si256::<1>(codes)];
            for (j, codes) in halves.into_iter().enumerate() {
                let scale = if j == 0 { first } else { second };
                let low = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
                let high = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(codes, codes)));
                store_16(dtype, dst, 2 * i + j, _mm256_mul_ps(low, scale), _mm256_mul_ps(high, scale));
            }
        }
    }
    if !columns.is_multiple_of(128) {
        // groups of up to 128 begin anew here; in wider ones the tail has the last scale
        let first = 128 * whole / scheme.group.width(columns);
        scalar::dequantize_row(
            scheme,
            &packed[BLOCK * whole..],
            &scales[2 * first..],
            dtype,
            &mut dst[128 * whole * dtype.size()..],
            Out::Cached,
            scratch,
        );
    }
}
