//! A row of floats to packed codes and scales.
//!
//! Per block of groups, two passes over source that the first leaves in L1: scales, then
//! codes. For f32 the second multiplies by `65536 / S` instead of dividing by `S`, which leaves the
//! quotient in fixed point: the code above 16 fraction bits. All rounding errors together
//! (of the reciprocal, the product, the conversion, and of the division that the
//! definition rounds) stay below two units of the last place for quotients below 128, so
//! only fractions within two units of one half can round differently. A group that has
//! such a fraction is done again with a true division.

use std::arch::x86_64::*;

use super::convert::{BF16, F16, F32, Source, extremes, load_split};
use super::memory::store_24;
use super::pack::pack_32;
use super::search;
use crate::arch::scalar::{self, exact_scale, round_scale};
use crate::arch::{Fault, Scratch};
use crate::dtype::FloatType;
use crate::scheme::{ScaleRule, ScaleType, Scheme};

/// Source elements between the two passes.
const BLOCK: usize = 2048;
/// Elements packed at a time.
const STEP: usize = 32;

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn quantize_row(
    scheme: &Scheme,
    dtype: FloatType,
    src: &[u8],
    packed: &mut [u8],
    scales: &mut [u8],
    scratch: &mut Scratch,
) -> Result<(), Fault> {
    if scheme.scale_type == ScaleType::Pair {
        let floats = &mut scratch.floats;
        floats.resize(src.len() / dtype.size(), 0.0);
        super::convert::to_f32(dtype, src, floats);
        return scalar::quantize_row_of_pairs(scheme, floats, packed, scales);
    }
    match dtype {
        FloatType::F32 => quantize::<F32>(scheme, src, packed, scales, scratch),
        FloatType::F16 => quantize::<F16>(scheme, src, packed, scales, scratch),
        FloatType::BF16 => quantize::<BF16>(scheme, src, packed, scales, scratch),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn quantize<S: Source>(
    scheme: &Scheme,
    src: &[u8],
    packed: &mut [u8],
    scales: &mut [u8],
    scratch: &mut Scratch,
) -> Result<(), Fault> {
    let size = S::DTYPE.size();
    let width = scheme.group.width(src.len() / size);
    let groups = (BLOCK / width).max(1);
    let blocks = src
        .chunks(groups * width * size)
        .zip(packed.chunks_mut((groups * width * 3).div_ceil(4)))
        .zip(scales.as_chunks_mut::<2>().0.chunks_mut(groups));
    for (block, ((src, packed), scales)) in blocks.enumerate() {
        for (i, (w, scale)) in src.chunks(width * size).zip(scales.iter_mut()).enumerate() {
            let group = block * groups + i;
            *scale = scale_bits::<S>(scheme, group, group * width, w, scratch)?.to_le_bytes();
        }
        let packed = packed.chunks_mut((width * 3).div_ceil(4));
        for ((w, packed), scale) in src.chunks(width * size).zip(packed).zip(scales.iter()) {
            pack_group::<S>(scheme.scale_type.from_bits(u16::from_le_bytes(*scale)), w, packed, scratch);
        }
    }
    Ok(())
}

/// The stored bits of a group's scale. `group` and `column` say where it lies, for errors.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scale_bits<S: Source>(
    scheme: &Scheme,
    group: usize,
    column: usize,
    src: &[u8],
    scratch: &mut Scratch,
) -> Result<u16, Fault> {
    let count = src.len() / S::DTYPE.size();
    let whole = count / 16;
    let (mut largest, mut high) = extremes::<S>(src, whole);
    let tail = &src[whole * 16 * S::DTYPE.size()..];
    if !tail.is_empty() {
        let mut w = [0.0; 16];
        scalar::to_f32(S::DTYPE, tail, &mut w[..count % 16]);
        high = w.into_iter().fold(high, f32::max);
        // NaN where an element is not finite, which `max` alone would drop
        let tail = scalar::abs_max(&w);
        largest = if largest.is_nan() || tail.is_nan() { f32::NAN } else { largest.max(tail) };
    }
    if !largest.is_finite() {
        return Err(non_finite::<S>(column, src, scratch));
    }
    let low = if high == largest { 0.0 } else { -largest };
    let scale = exact_scale(scheme.rule, low, high);
    let bits = round_scale(scheme.scale_type, scale).map_err(|scale| Fault::Overflow { group, scale })?;
    if scheme.rule != ScaleRule::Mse || bits == 0 {
        return Ok(bits);
    }
    let floats = &mut scratch.floats;
    floats.clear();
    floats.resize(count.next_multiple_of(16), 0.0);
    super::convert::to_f32(S::DTYPE, src, &mut floats[..count]);
    Ok(search::search(scheme.scale_type, scale, bits, floats))
}

/// The first element that is not finite; there is one.
#[cold]
fn non_finite<S: Source>(column: usize, src: &[u8], scratch: &mut Scratch) -> Fault {
    let floats = &mut scratch.floats;
    floats.resize(src.len() / S::DTYPE.size(), 0.0);
    scalar::to_f32(S::DTYPE, src, floats);
    let first = floats.iter().position(|w| !w.is_finite()).unwrap_or(0);
    Fault::NonFinite { column: column + first, value: floats[first] }
}

/// Codes of one group against its rounded scale.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn pack_group<S: Source>(scale: f32, src: &[u8], packed: &mut [u8], scratch: &mut Scratch) {
    let count = src.len() / S::DTYPE.size();
    if scale == 0.0 {
        return scalar::pack(packed, count, |_| 0);
    }
    let steps = count / STEP;
    let packed_right = if S::DTYPE == FloatType::F32 {
        pack_fixed::<S>(scale, src, packed, steps)
    } else {
        pack_rounded::<S>(scale, src, packed, steps)
    };
    if !packed_right {
        pack_divided::<S>(scale, src, packed, steps);
    }
    let tail = &src[steps * STEP * S::DTYPE.size()..];
    if !tail.is_empty() {
        let floats = &mut scratch.floats;
        floats.resize(count % STEP, 0.0);
        scalar::to_f32(S::DTYPE, tail, floats);
        scalar::pack(&mut packed[steps * 24..], floats.len(), |i| scalar::code(floats[i], scale));
    }
}

/// Packs `32 steps` elements of 16 bits; `false` when the codes may be wrong.
///
/// Quotients of 16-bit floats are half an integer or well away from it, so rounding to a
/// multiple of 2^-15 first, then to an integer, both by adding a large number, is right
/// wherever the reciprocal is: the AVX-512 kernels say why.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn pack_rounded<S: Source>(scale: f32, src: &[u8], packed: &mut [u8], steps: usize) -> bool {
    const FINE: f32 = 384.0;
    const INTEGER: f32 = 12_582_912.0;
    const RANGE: f32 = (1u128 << 100) as f32;
    if !(1.0 / RANGE..=RANGE).contains(&scale.abs()) {
        return false;
    }
    let reciprocal = _mm256_set1_ps(1.0 / scale);
    let (fine, integer) = (_mm256_set1_ps(FINE), _mm256_set1_ps(INTEGER - FINE));
    for i in 0..steps {
        let mut codes = [_mm256_setzero_si256(); 2];
        for (j, codes) in codes.iter_mut().enumerate() {
            let (even, odd) = load_split::<S>(src, 2 * i + j);
            let even = _mm256_add_ps(_mm256_fmadd_ps(even, reciprocal, fine), integer);
            let odd = _mm256_add_ps(_mm256_fmadd_ps(odd, reciprocal, fine), integer);
            let odd = _mm256_slli_epi32::<16>(_mm256_castps_si256(odd));
            *codes = _mm256_blend_epi16::<0b1010_1010>(_mm256_castps_si256(even), odd);
        }
        store_24(packed, 24 * i, pack_32(codes[0], codes[1]));
    }
    true
}

/// Packs `32 steps` elements of f32; `false` when the codes may be wrong.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn pack_fixed<S: Source>(scale: f32, src: &[u8], packed: &mut [u8], steps: usize) -> bool {
    const DOUBT: i32 = 2;
    let reciprocal = _mm256_set1_ps(65536.0 / scale);
    let half = _mm256_set1_ps((32768 + DOUBT) as f32);
    let mut least = _mm256_set1_epi16(-1);
    for i in 0..steps {
        let mut codes = [_mm256_setzero_si256(); 2];
        for (j, codes) in codes.iter_mut().enumerate() {
            let (even, odd) = load_split::<S>(src, 2 * i + j);
            let even = _mm256_cvtps_epi32(_mm256_fmadd_ps(even, reciprocal, half));
            let odd = _mm256_cvtps_epi32(_mm256_fmadd_ps(odd, reciprocal, half));
            *codes = _mm256_blend_epi16::<0b1010_1010>(_mm256_srli_epi32::<16>(even), odd);
            let fractions = _mm256_blend_epi16::<0b1010_1010>(even, _mm256_slli_epi32::<16>(odd));
            least = _mm256_min_epu16(least, fractions);
        }
        store_24(packed, 24 * i, pack_32(codes[0], codes[1]));
    }
    let doubtful = _mm256_min_epu16(least, _mm256_set1_epi16(2 * (DOUBT as i16) - 1));
    _mm256_testz_si256(_mm256_cmpeq_epi16(doubtful, least), _mm256_set1_epi16(-1)) == 1
}

/// Packs `32 steps` elements by division.
#[cold]
#[target_feature(enable = "avx2,fma,f16c")]
fn pack_divided<S: Source>(scale: f32, src: &[u8], packed: &mut [u8], steps: usize) {
    let scale = _mm256_set1_ps(scale);
    for i in 0..steps {
        let mut codes = [_mm256_setzero_si256(); 2];
        for (j, codes) in codes.iter_mut().enumerate() {
            let (even, odd) = load_split::<S>(src, 2 * i + j);
            let even = _mm256_cvtps_epi32(_mm256_div_ps(even, scale));
            let odd = _mm256_cvtps_epi32(_mm256_div_ps(odd, scale));
            *codes = _mm256_blend_epi16::<0b1010_1010>(even, _mm256_slli_epi32::<16>(odd));
        }
        store_24(packed, 24 * i, pack_32(codes[0], codes[1]));
    }
}
