//! Scales of sixteen weight rows side by side.

use std::arch::x86_64::*;

use super::super::avx2::Rows;
use super::transpose::transpose;
use crate::arch::{LANES, Weights};
use crate::scheme::ScaleType;

impl Rows {
    /// [`Rows::scales`] of sixteen rows; sixteen scales of each are turned around where they may be.
    #[target_feature(enable = "avx512f,avx512bw,avx2,f16c")]
    pub fn scales_of_16(self, w: &Weights<'_>, first: usize, width: usize, scales: &mut [f32]) {
        let count = w.group.count(w.columns);
        let one_each = width == w.scale_width() && w.scale_type.per_word() == 1;
        let mut rows: [&[[u8; 2]]; LANES] = [&[]; LANES];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = w.scales_row(self.row(r)).as_chunks().0;
        }
        for (i, scales) in scales.chunks_mut(LANES * LANES).enumerate() {
            let first = first + i * LANES;
            if one_each && scales.len() == LANES * LANES && first + LANES <= count {
                turn(rows, first, w.scale_type, scales);
            } else {
                self.scales::<LANES>(w, first, width, scales);
            }
        }
    }
}

/// Sixteen scales of sixteen rows.
#[target_feature(enable = "avx512f,avx512bw,f16c")]
fn turn(rows: [&[[u8; 2]]; LANES], first: usize, scale_type: ScaleType, scales: &mut [f32]) {
    let mut tile = [_mm512_setzero_si512(); LANES];
    for (tile, row) in tile.iter_mut().zip(rows) {
        let words = &row[first..][..LANES];
        // SAFETY: sixteen words were just checked.
        let words = unsafe { _mm256_loadu_si256(words.as_ptr().cast()) };
        *tile = _mm512_castps_si512(to_f32(words, scale_type));
    }
    for (column, scales) in transpose(&tile).into_iter().zip(scales.chunks_exact_mut(LANES)) {
        // SAFETY: a chunk has sixteen floats.
        unsafe { _mm512_storeu_si512(scales.as_mut_ptr().cast(), column) };
    }
}

/// Stored bits to numbers.
#[inline]
#[target_feature(enable = "avx512f,f16c")]
fn to_f32(bits: __m256i, scale_type: ScaleType) -> __m512 {
    match scale_type {
        ScaleType::F16 | ScaleType::Pair => _mm512_cvtph_ps(bits),
        ScaleType::BF16 => _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits))),
    }
}
