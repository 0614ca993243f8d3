//! Scales of sixteen weight rows side by side.

use std::arch::x86_64::*;

use super::transpose::transpose;
use crate::arch::{LANES, Weights};
use crate::pair;
use crate::scheme::ScaleType;

/// Sixteen weight rows from `n` on; the last before `end` stands for those past it.
#[derive(Clone, Copy)]
pub(in crate::arch::x86_64) struct Rows {
    pub n: usize,
    pub end: usize,
}

impl Rows {
    #[inline]
    pub fn row(self, r: usize) -> usize {
        (self.n + r).min(self.end - 1)
    }

    /// The scales of segments `first ..` of `width` columns as f32, `[segments, 16]`. Past the end
    /// of a row dots are zero and any scale does.
    #[target_feature(enable = "avx512f,avx512bw,f16c")]
    pub fn scales(self, w: &Weights<'_>, first: usize, width: usize, scales: &mut [f32]) {
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
                gather(w, rows, first, width, scales);
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

/// Scales of sixteen rows one by one, however they are stored.
#[target_feature(enable = "avx512f,avx512bw,f16c")]
fn gather(w: &Weights<'_>, rows: [&[[u8; 2]]; LANES], first: usize, width: usize, scales: &mut [f32]) {
    let (scale_width, per_word) = (w.scale_width(), w.scale_type.per_word());
    let last = w.group.count(w.columns) - 1;
    for (s, scales) in scales.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let i = (first + s) * width / scale_width;
        let mut bits = [0; LANES];
        let word = (i / per_word).min(last);
        for (bits, row) in bits.iter_mut().zip(rows) {
            *bits = u16::from_le_bytes(row[word]);
        }
        if w.scale_type == ScaleType::Pair {
            for bits in &mut bits {
                *bits = pair::unpack(*bits, i % 2);
            }
        }
        // SAFETY: the array has 32 bytes and the scales 16 floats.
        unsafe {
            let bits = _mm256_loadu_si256(bits.as_ptr().cast());
            _mm512_storeu_ps(scales.as_mut_ptr(), to_f32(bits, w.scale_type));
        }
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
