//! A row of floats to packed codes and scales.
//!
//! Blocks of sixteen groups: while one is packed, the largest elements of the next one are found,
//! which leaves it in L1. The scales of a block are made at once.
//!
//! # Codes without division
//! `w / S` is found as `w * (1 / S)`, off by less than 2^-17 for quotients below 64, and
//! rounded twice: to a multiple of 2^-15, then, half to even, to an integer. Both roundings
//! are what adding a large number does. For 16-bit floats and scales that is always the
//! code which the definition gives. The quotient of two such numbers is either half an
//! integer, which the first rounding restores, or more than 2^-13 away from it, which
//! neither the errors nor the first rounding can bridge: with integers `a`, `b` below
//! 2^11, the distance of `a 2^i / b` from `n + 1/2` is at least `1 / 2b` for i >= -1; for
//! smaller `i` it is a multiple of `1 / (b 2^-i)`, and near or above one half `b 2^-i` is
//! below `2a`. For f32, elements within two steps of a tie are done again by division.

use std::arch::x86_64::*;
use std::slice::Chunks;

use super::convert::{from_scale_bits, load_pair, place_of, to_scale_bits};
use super::largest::{GROUPS, Keys};
use super::memory::{places, to_array};
use super::pack::pack_64;
use super::search;
use super::writer::Writer;
use crate::arch::x86_64::avx2::convert::{BF16, F16, F32, Source};
use crate::arch::{Fault, Out, Scratch, scalar};
use crate::dtype::FloatType;
use crate::scheme::{Group, ScaleRule, Scheme};

/// How far ahead of what is packed memory is asked for, in bytes: a block of 16-bit elements, or
/// half of one, before its largest elements are sought.
const AHEAD: usize = 8192;
/// Elements packed at a time.
const STEP: usize = 64;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,bmi2")]
pub(super) fn quantize_row(
    scheme: &Scheme,
    dtype: FloatType,
    src: &[u8],
    packed: &mut [u8],
    scales: &mut [u8],
    out: Out,
    scratch: &mut Scratch,
) -> Result<(), Fault> {
    let done = match dtype {
        FloatType::F32 => quantize::<F32>(scheme, src, packed, scales, out, scratch),
        FloatType::F16 => quantize::<F16>(scheme, src, packed, scales, out, scratch),
        FloatType::BF16 => quantize::<BF16>(scheme, src, packed, scales, out, scratch),
    };
    match done {
        Some(()) => Ok(()),
        // it says what is wrong, or does it by division
        None => scalar::quantize_row(scheme, dtype, src, packed, scales, out, scratch),
    }
}

/// `None` when an element is not finite or a scale out of the range that is usual.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,bmi2")]
fn quantize<S: Source>(
    scheme: &Scheme,
    src: &[u8],
    packed: &mut [u8],
    scales: &mut [u8],
    out: Out,
    scratch: &mut Scratch,
) -> Option<()> {
    let size = S::DTYPE.size();
    let width = scheme.group.width(src.len() / size);
    let (block, group_bits) = match scheme.group {
        Group::Columns(columns) => (GROUPS * columns, columns.trailing_zeros()),
        Group::Row => (width, usize::BITS - 1),
    };
    let mut writer = Writer::new(packed, out);
    let mut last = _mm512_setzero_si512();
    let mut blocks = src.chunks(block * size);
    let mut next = blocks.next().unwrap_or_default();
    let mut keys = Keys::none();
    keys.add::<S>(group_bits, 0, next);
    for scales in scales.as_chunks_mut::<2>().0.chunks_mut(GROUPS) {
        let (src, largest) = (next, keys.elements::<S>());
        (next, keys) = (blocks.next().unwrap_or_default(), Keys::none());
        let mut bits = [0; GROUPS];
        let divisors = divisors::<S>(scheme, largest, src.chunks(width * size), &mut bits, scratch)?;
        for (scale, bits) in scales.iter_mut().zip(bits) {
            *scale = bits.to_le_bytes();
        }
        last = pack_block::<S>(group_bits, &divisors, src, &mut writer, next, &mut keys);
    }
    writer.finish(last);
    Some(())
}

/// What elements are divided by, per group: the scales, infinity in place of zeros.
struct Divisors {
    scales: [f32; GROUPS],
    reciprocals: [f32; GROUPS],
}

/// The scales of groups with these largest elements; their stored bits go to `bits`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,bmi2")]
fn divisors<S: Source>(
    scheme: &Scheme,
    largest: __m512,
    groups: Chunks<'_, u8>,
    bits: &mut [u16; GROUPS],
    scratch: &mut Scratch,
) -> Option<Divisors> {
    let infinity = _mm512_set1_ps(f32::INFINITY);
    if _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(_mm512_abs_ps(largest), infinity) != 0 {
        return None;
    }
    let exact = match scheme.rule {
        ScaleRule::AbsMax31 | ScaleRule::Imported => {
            _mm512_div_ps(_mm512_abs_ps(largest), _mm512_set1_ps(31.0))
        }
        ScaleRule::AbsMax32s | ScaleRule::Mse => _mm512_mul_ps(largest, _mm512_set1_ps(-1.0 / 32.0)),
    };
    let mut stored = to_scale_bits(scheme.scale_type, exact);
    if scheme.rule == ScaleRule::Mse {
        store_bits(bits, stored);
        let exact = to_array(exact);
        for (i, w) in groups.enumerate() {
            // 0x8000 is minus zero
            if bits[i] & 0x7fff != 0 {
                bits[i] = search::search::<S>(scheme.scale_type, exact[i], w, &mut scratch.floats);
            }
        }
        stored = load_bits(bits);
    }
    let scales = from_scale_bits(scheme.scale_type, stored);
    let zero = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(scales, _mm512_setzero_ps());
    store_bits(bits, _mm256_maskz_mov_epi16(!zero, stored));
    // reciprocals out of range lose bits; f16 has none
    let magnitudes = _mm512_abs_ps(scales);
    let usual = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(magnitudes, _mm512_set1_ps(1.0 / RANGE))
        & _mm512_cmp_ps_mask::<_CMP_LE_OQ>(magnitudes, _mm512_set1_ps(RANGE));
    if zero | usual != !0 {
        return None;
    }
    let scales = _mm512_mask_mov_ps(scales, zero, infinity);
    let reciprocals = _mm512_div_ps(_mm512_set1_ps(1.0), scales);
    Some(Divisors { scales: to_array(scales), reciprocals: to_array(reciprocals) })
}

/// 2^100, or its reciprocal, is the magnitude of the largest, or smallest, scale whose
/// reciprocal is used.
const RANGE: f32 = (1u128 << 100) as f32;

#[inline]
#[target_feature(enable = "avx512f")]
fn load_bits(bits: &[u16; GROUPS]) -> __m256i {
    // SAFETY: there are 32 bytes.
    unsafe { _mm256_loadu_si256(bits.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_bits(bits: &mut [u16; GROUPS], value: __m256i) {
    // SAFETY: there are 32 bytes.
    unsafe { _mm256_storeu_si256(bits.as_mut_ptr().cast(), value) }
}

/// Writes the codes of a block and returns those of a last, shorter step; element `i` is of group
/// `i >> group_bits`. Meanwhile the keys of the `next` block are found, so that arithmetic and
/// memory are in use all the time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vbmi,avx512vbmi2")]
fn pack_block<S: Source>(
    group_bits: u32,
    divisors: &Divisors,
    src: &[u8],
    writer: &mut Writer<'_>,
    next: &[u8],
    keys: &mut Keys,
) -> __m512i {
    let size = S::DTYPE.size();
    let groups = |i: usize| [i >> group_bits, (i + STEP / 2) >> group_bits];
    let steps = src.chunks_exact(STEP * size);
    let tail = steps.remainder();
    let mut next = next;
    for (i, w) in steps.enumerate() {
        for line in (0..STEP * size).step_by(64) {
            // an address that is not mapped does no harm
            _mm_prefetch::<_MM_HINT_T1>(w.as_ptr().wrapping_add(AHEAD + line).cast());
        }
        // a length that is known when code is generated makes it a straight line
        if let Some((step, rest)) = next.split_at_checked(STEP * size) {
            keys.add::<S>(group_bits, STEP * i, step);
            next = rest;
        } else {
            keys.add_last::<S>(group_bits, STEP * i, next);
            next = &[];
        }
        writer.push(pack_step::<S>(w, divisors, groups(STEP * i), !0));
    }
    if tail.is_empty() {
        return _mm512_setzero_si512();
    }
    let mut w = [0; STEP * 4];
    w[..tail.len()].copy_from_slice(tail);
    let count = tail.len() / size;
    pack_step::<S>(&w[..STEP * size], divisors, groups(src.len() / size - count), (1 << count) - 1)
}

/// Packs 64 elements of two groups; those not `valid` leave zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vbmi")]
fn pack_step<S: Source>(w: &[u8], divisors: &Divisors, groups: [usize; 2], valid: __mmask64) -> __m512i {
    let (mut codes, doubtful) = codes::<S>(w, groups.map(|group| divisors.reciprocals[group]));
    if doubtful {
        codes = codes_by_division::<S>(w, groups.map(|group| divisors.scales[group]));
    }
    pack_64(_mm512_maskz_min_epu8(valid, codes, _mm512_set1_epi8(63)))
}

/// 1.5 * 2^23: added to a small number, this makes the lowest bits of the sum an integer.
const INTEGER: f32 = 12_582_912.0;
/// 1.5 * 2^8: as above, in units of 2^-15.
const FINE: f32 = 384.0;

/// Codes plus 32 of 64 elements, not yet below 64, and whether some may be wrong.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vbmi")]
fn codes<S: Source>(w: &[u8], reciprocals: [f32; 2]) -> (__m512i, bool) {
    let fine = _mm512_set1_ps(FINE);
    let integer = _mm512_set1_ps(INTEGER + 32.0 - FINE);
    let mut words = [_mm512_setzero_si512(); 2];
    let mut largest_rest = _mm512_setzero_ps();
    for (j, words) in words.iter_mut().enumerate() {
        let reciprocal = _mm512_set1_ps(reciprocals[j]);
        let (a, b) = load_pair::<S>(w, j);
        let mut both = [a, b];
        for w in &mut both {
            let quotient = _mm512_fmadd_ps(*w, reciprocal, fine);
            *w = _mm512_add_ps(quotient, integer);
            if S::DTYPE == FloatType::F32 {
                let rest = _mm512_sub_ps(quotient, _mm512_sub_ps(*w, integer));
                largest_rest = _mm512_max_ps(largest_rest, _mm512_abs_ps(rest));
            }
        }
        *words = low_words(both);
    }
    // within two steps of one half
    let limit = _mm512_set1_ps(0.5 - 1.5 / 32768.0);
    let doubtful = S::DTYPE == FloatType::F32 && _mm512_cmp_ps_mask::<_CMP_GT_OQ>(largest_rest, limit) != 0;
    (in_order::<S>(words), doubtful)
}

/// The same by the definition.
#[cold]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vbmi")]
fn codes_by_division<S: Source>(w: &[u8], scales: [f32; 2]) -> __m512i {
    let integer = _mm512_set1_ps(INTEGER + 32.0);
    let mut words = [_mm512_setzero_si512(); 2];
    for (j, words) in words.iter_mut().enumerate() {
        let scale = _mm512_set1_ps(scales[j]);
        let (a, b) = load_pair::<S>(w, j);
        *words = low_words([
            _mm512_add_ps(_mm512_div_ps(a, scale), integer),
            _mm512_add_ps(_mm512_div_ps(b, scale), integer),
        ]);
    }
    in_order::<S>(words)
}

/// The lower halves of the lanes of two vectors, interleaved.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn low_words([a, b]: [__m512; 2]) -> __m512i {
    let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
    _mm512_mask_blend_epi16(0xaaaa_aaaa, a, _mm512_slli_epi32::<16>(b))
}

/// Two vectors of [`low_words`], saturated to bytes, in the order of the elements.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn in_order<S: Source>([a, b]: [__m512i; 2]) -> __m512i {
    let bytes = _mm512_packus_epi16(a, b);
    let order = if S::DTYPE == FloatType::BF16 {
        const { &order(FloatType::BF16) }
    } else {
        const { &order(FloatType::F32) }
    };
    _mm512_permutexvar_epi8(places(order), bytes)
}

/// Where `packus` of two vectors of interleaved words has each element: it takes eight
/// words of the first and eight of the second in turn.
const fn order(dtype: FloatType) -> [u8; 64] {
    let mut places = [0; 64];
    let mut i = 0;
    while i < 64 {
        let word = place_of(dtype, i % 32);
        places[i] = (word / 8 * 16 + i / 32 * 8 + word % 8) as u8;
        i += 1;
    }
    places
}
