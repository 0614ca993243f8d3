//! The elements of largest magnitude of sixteen groups.
//!
//! A key is the bits of a float, rotated by one and with the sign inverted: integers order
//! keys by magnitude first, NaN above all, then by sign, so that of `+m` and `-m` the first wins.

use std::arch::x86_64::*;

use super::memory::load_64;
use crate::arch::x86_64::avx2::convert::Source;
use crate::dtype::FloatType;

/// Most groups whose scales are made at once.
pub(super) const GROUPS: usize = 16;

/// The largest keys in every lane of each group: sixteen of 32 bits, or 32 of 16 bits.
pub(super) struct Keys([__m512i; GROUPS]);

impl Keys {
    /// Of no elements.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn none() -> Self {
        Self([_mm512_setzero_si512(); GROUPS])
    }

    /// Takes in the elements from `first` on; element `i` is of group `i >> group_bits`. Groups
    /// begin with a vector.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2")]
    pub fn add<S: Source>(&mut self, group_bits: u32, first: usize, src: &[u8]) {
        let (whole, tail) = src.as_chunks::<64>();
        let in_vector = 64 / S::DTYPE.size();
        for (i, w) in whole.iter().enumerate() {
            self.add_vector::<S>((first + i * in_vector) >> group_bits, w);
        }
        if !tail.is_empty() {
            let mut w = [0; 64];
            w[..tail.len()].copy_from_slice(tail);
            self.add_vector::<S>((first + whole.len() * in_vector) >> group_bits, &w);
        }
    }

    /// As [`Self::add`], out of line.
    #[cold]
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2")]
    pub fn add_last<S: Source>(&mut self, group_bits: u32, first: usize, src: &[u8]) {
        self.add::<S>(group_bits, first, src);
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2")]
    fn add_vector<S: Source>(&mut self, group: usize, w: &[u8; 64]) {
        let w = load_64(w, 0);
        let keys = if S::DTYPE == FloatType::F32 {
            _mm512_xor_si512(_mm512_rol_epi32::<1>(w), _mm512_set1_epi32(1))
        } else {
            _mm512_xor_si512(_mm512_shldi_epi16::<1>(w, w), _mm512_set1_epi16(1))
        };
        let group = &mut self.0[group % GROUPS];
        *group = max::<S>(*group, keys);
    }

    /// The element of every group. One of no elements has minus zero.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn elements<S: Source>(&self) -> __m512 {
        let keys = self.largest::<S>();
        let sign = _mm512_slli_epi32::<31>(_mm512_andnot_si512(keys, _mm512_set1_epi32(1)));
        let magnitude = _mm512_srli_epi32::<1>(keys);
        let magnitude = match S::DTYPE {
            FloatType::F32 => magnitude,
            FloatType::F16 => _mm512_castps_si512(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(magnitude))),
            FloatType::BF16 => _mm512_slli_epi32::<16>(magnitude),
        };
        _mm512_castsi512_ps(_mm512_or_si512(sign, magnitude))
    }

    /// The largest key of every group: vectors are joined by twos, so that half as many lanes
    /// are left of each.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn largest<S: Source>(&self) -> __m512i {
        let mut quads = [_mm512_setzero_si512(); 4];
        for (quad, groups) in quads.iter_mut().zip(self.0.as_chunks::<4>().0) {
            let (ab, cd) = (halves::<S>(groups[0], groups[1]), halves::<S>(groups[2], groups[3]));
            // a quarter of each of four groups
            *quad = max::<S>(
                _mm512_shuffle_i64x2::<0b10_00_10_00>(ab, cd),
                _mm512_shuffle_i64x2::<0b11_01_11_01>(ab, cd),
            );
        }
        let [a, b, c, d] = quads;
        let ab = max::<S>(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
        let cd = max::<S>(_mm512_unpacklo_epi64(c, d), _mm512_unpackhi_epi64(c, d));
        let (ab, cd) = (_mm512_castsi512_ps(ab), _mm512_castsi512_ps(cd));
        let even = _mm512_castps_si512(_mm512_shuffle_ps::<0b10_00_10_00>(ab, cd));
        let odd = _mm512_castps_si512(_mm512_shuffle_ps::<0b11_01_11_01>(ab, cd));
        // 32 bits of group `4 i + j` at `4 j + i`
        let mut keys = max::<S>(even, odd);
        if S::DTYPE != FloatType::F32 {
            let low = _mm512_and_si512(keys, _mm512_set1_epi32(0xffff));
            keys = _mm512_max_epu32(low, _mm512_srli_epi32::<16>(keys));
        }
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        _mm512_permutexvar_epi32(order, keys)
    }
}

/// What is left of two vectors when their halves are compared.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn halves<S: Source>(a: __m512i, b: __m512i) -> __m512i {
    max::<S>(_mm512_shuffle_i64x2::<0b01_00_01_00>(a, b), _mm512_shuffle_i64x2::<0b11_10_11_10>(a, b))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn max<S: Source>(a: __m512i, b: __m512i) -> __m512i {
    if S::DTYPE == FloatType::F32 { _mm512_max_epu32(a, b) } else { _mm512_max_epu16(a, b) }
}
