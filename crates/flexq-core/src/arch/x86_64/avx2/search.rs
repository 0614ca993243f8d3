//! The `mse` search, two vectors of eight lanes for the sixteen that the rule defines.

use std::arch::x86_64::*;

use super::memory::load_f32;
use crate::arch::scalar::MSE_FACTORS;
use crate::scheme::ScaleType;

/// Candidates tried in one pass over the group.
const TOGETHER: usize = 4;

/// The stored bits of the first candidate of least squared error. `w` is padded with
/// zeros to a multiple of 16.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn search(scale_type: ScaleType, scale: f32, bits: u16, w: &[f32]) -> u16 {
    let base = scale_type.from_bits(bits);
    let mut best = (bits, f32::INFINITY);
    for factors in MSE_FACTORS.as_chunks::<TOGETHER>().0 {
        let bits = factors.map(|factor| scale_type.to_bits(scale * factor));
        let candidates = bits.map(|bits| scale_type.from_bits(bits));
        let errors = squared_errors(w, candidates.map(|candidate| 1.0 / candidate));
        for ((bits, candidate), error) in bits.into_iter().zip(candidates).zip(errors) {
            let ratio = candidate / base;
            let error = error * (ratio * ratio);
            if error < best.1 {
                best = (bits, error);
            }
        }
    }
    best.0
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn squared_errors(w: &[f32], reciprocals: [f32; TOGETHER]) -> [f32; TOGETHER] {
    let mut low = [_mm256_setzero_ps(); TOGETHER];
    let mut high = [_mm256_setzero_ps(); TOGETHER];
    for i in 0..w.len() / 16 {
        let (a, b) = (load_f32(w, 16 * i), load_f32(w, 16 * i + 8));
        for j in 0..TOGETHER {
            low[j] = _mm256_add_ps(low[j], squared_error(a, _mm256_set1_ps(reciprocals[j])));
            high[j] = _mm256_add_ps(high[j], squared_error(b, _mm256_set1_ps(reciprocals[j])));
        }
    }
    let mut errors = [0.0; TOGETHER];
    for (error, (low, high)) in errors.iter_mut().zip(low.into_iter().zip(high)) {
        let x = _mm256_add_ps(low, high);
        let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        *error = _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
    }
    errors
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn squared_error(w: __m256, reciprocal: __m256) -> __m256 {
    const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    let t = _mm256_mul_ps(w, reciprocal);
    let q = _mm256_min_ps(_mm256_round_ps::<NEAREST>(t), _mm256_set1_ps(31.0));
    let d = _mm256_sub_ps(t, _mm256_max_ps(q, _mm256_set1_ps(-32.0)));
    _mm256_mul_ps(d, d)
}
