//! Activations to codes.

use std::arch::x86_64::*;

use super::memory::load_f32;
use crate::arch::scalar;

/// The largest magnitude; NaN when an element is not finite.
#[target_feature(enable = "avx2")]
pub(super) fn abs_max(x: &[f32]) -> f32 {
    // floats without their sign order like integers, infinities and NaN above all others
    let magnitude = _mm256_set1_epi32(0x7fff_ffff);
    let mut max = _mm256_setzero_si256();
    let whole = x.len() / 8;
    for i in 0..whole {
        let x = _mm256_castps_si256(load_f32(x, 8 * i));
        max = _mm256_max_epi32(max, _mm256_and_si256(x, magnitude));
    }
    let mut lanes = [0.0f32; 8];
    // SAFETY: eight lanes fit the array.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), _mm256_castsi256_ps(max)) };
    let (lanes, tail) = (scalar::abs_max(&lanes), scalar::abs_max(&x[8 * whole..]));
    if lanes.is_nan() || tail.is_nan() { f32::NAN } else { lanes.max(tail) }
}

#[target_feature(enable = "avx2")]
pub(super) fn quantize_activations(x: &[f32], scale: f32, limit: f32, codes: &mut [i8]) {
    let (scale_8, limit_8) = (_mm256_set1_ps(scale), _mm256_set1_ps(limit));
    let least = _mm256_set1_ps(-limit);
    let whole = x.len() / 32;
    for i in 0..whole {
        let mut q = [_mm256_setzero_si256(); 4];
        for (j, q) in q.iter_mut().enumerate() {
            let t = _mm256_div_ps(load_f32(x, 32 * i + 8 * j), scale_8);
            // a clamp to integers before rounding gives the same as after it
            *q = _mm256_cvtps_epi32(_mm256_max_ps(_mm256_min_ps(t, limit_8), least));
        }
        let [a, b, c, d] = q;
        let bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        // four-byte pieces 0 2 4 6 | 1 3 5 7 after the packs
        let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        let codes = &mut codes[32 * i..32 * i + 32];
        // SAFETY: 32 bytes were just checked.
        unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), bytes) };
    }
    scalar::quantize_activations(&x[32 * whole..], scale, limit, &mut codes[32 * whole..]);
}
