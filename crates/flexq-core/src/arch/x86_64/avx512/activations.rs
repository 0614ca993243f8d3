//! Activations to codes, 128 columns of sixteen rows side by side.

use std::arch::x86_64::*;

use super::memory::store_codes;
use super::transpose::interleave;
use crate::activations::{BlockCodes, Rule, offset_of};
use crate::arch::{ACTIVATION_GROUP, LANES};
use crate::dtype::FloatType;
use crate::rows::FloatRows;

/// Vectors of a group.
pub(in crate::arch::x86_64) const VECTORS: usize = ACTIVATION_GROUP / LANES;

/// Quantizes columns `first ..` of rows `row ..`; `whole` has the scale of every row of `x`, or is empty.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn quantize_block(
    x: &FloatRows<'_>,
    row: usize,
    first: usize,
    rule: Rule,
    whole: &[f32],
    out: &mut BlockCodes<'_>,
) {
    let size = x.dtype().size();
    let columns = ACTIVATION_GROUP.min(x.columns() - first);
    let limit = f32::from(rule.limit);
    let mut lines = [0i8; LANES * ACTIVATION_GROUP];
    out.scales.fill(0.0);
    out.offsets.fill(0);
    for (lane, line) in lines.as_chunks_mut::<ACTIVATION_GROUP>().0.iter_mut().enumerate() {
        let m = row + lane;
        if m == x.rows() {
            break;
        }
        let x = load(x.dtype(), &x.row(m)[first * size..][..columns * size]);
        let scale = whole.get(m).copied().unwrap_or_else(|| abs_max(&x) / limit);
        out.scales[lane] = scale;
        if scale > 0.0 {
            for (codes, x) in line.as_chunks_mut().0.iter_mut().zip(x.as_chunks::<4>().0) {
                store_codes(codes, quantize(x, scale, limit));
            }
        }
        for (offsets, codes) in out.offsets.chunks_exact_mut(LANES).zip(line.chunks_exact(rule.segment)) {
            offsets[lane] = offset_of(codes);
        }
    }
    interleave(&lines, ACTIVATION_GROUP, out.codes);
}

/// Up to 128 numbers, and zeros after them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(in crate::arch::x86_64) fn load(dtype: FloatType, src: &[u8]) -> [__m512; VECTORS] {
    let mut x = [_mm512_setzero_ps(); VECTORS];
    let size = dtype.size();
    for (x, src) in x.iter_mut().zip(src.chunks(LANES * size)) {
        let mask = u16::MAX >> (LANES - src.len() / size);
        // SAFETY: only lanes that the source has are read.
        *x = unsafe {
            match dtype {
                FloatType::F32 => _mm512_maskz_loadu_ps(mask, src.as_ptr().cast()),
                FloatType::F16 => _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, src.as_ptr().cast())),
                FloatType::BF16 => {
                    let bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, src.as_ptr().cast()));
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
                }
            }
        };
    }
    x
}

/// The largest magnitude; NaN when an element is not finite.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn abs_max(x: &[__m512; VECTORS]) -> f32 {
    // floats without their sign order like integers, infinities and NaN above all others
    let mut max = _mm512_setzero_si512();
    for x in x {
        max = _mm512_max_epi32(max, _mm512_and_si512(_mm512_castps_si512(*x), _mm512_set1_epi32(i32::MAX)));
    }
    let max = f32::from_bits(_mm512_reduce_max_epi32(max) as u32);
    if max.is_finite() { max } else { f32::NAN }
}

/// `clamp(rne(x / scale), -limit, limit)` of 64 numbers.
#[inline]
#[target_feature(enable = "avx512f")]
fn quantize(x: &[__m512; 4], scale: f32, limit: f32) -> __m512i {
    let mut quarters = [_mm_setzero_si128(); 4];
    for (codes, x) in quarters.iter_mut().zip(x) {
        let t = _mm512_div_ps(*x, _mm512_set1_ps(scale));
        // a clamp to integers before rounding gives the same as after it
        let t = _mm512_max_ps(_mm512_min_ps(t, _mm512_set1_ps(limit)), _mm512_set1_ps(-limit));
        *codes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(t));
    }
    let [a, b, c, d] = quarters;
    let ab = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
    let cd = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(c), d);
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(ab), cd)
}
