//! Weight rows side by side.

use std::arch::x86_64::*;

use super::memory::store_f32;
use super::unpack::BLOCK;
use crate::arch::Weights;
use crate::pair;
use crate::scheme::ScaleType;

/// Weight rows from `n` on; the last before `end` stands for those past it.
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

    /// The scales of segments `first ..` of `width` columns as f32, `[segments, R]`; `R` is a
    /// multiple of eight. Past the end of a row dots are zero and any scale does.
    #[target_feature(enable = "avx2,f16c")]
    pub fn scales<const R: usize>(self, w: &Weights<'_>, first: usize, width: usize, scales: &mut [f32]) {
        let scale_width = w.scale_width();
        let per_word = w.scale_type.per_word();
        let last = w.group.count(w.columns) - 1;
        let mut rows: [&[[u8; 2]]; R] = [&[]; R];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = &w.scales_row(self.row(r)).as_chunks().0[..=last];
        }
        for (s, scales) in scales.as_chunks_mut::<R>().0.iter_mut().enumerate() {
            let i = (first + s) * width / scale_width;
            let word = (i / per_word).min(last);
            let mut bits = [0; R];
            for (bits, row) in bits.iter_mut().zip(rows) {
                *bits = u16::from_le_bytes(row[word]);
            }
            if w.scale_type == ScaleType::Pair {
                for bits in &mut bits {
                    *bits = pair::unpack(*bits, i % 2);
                }
            }
            for (h, bits) in bits.as_chunks().0.iter().enumerate() {
                store_f32(scales, 8 * h, to_f32(w.scale_type, bits));
            }
        }
    }
}

/// Bits of scales to f32.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn to_f32(scale_type: ScaleType, bits: &[u16; 8]) -> __m256 {
    // SAFETY: the array has sixteen bytes.
    let bits = unsafe { _mm_loadu_si128(bits.as_ptr().cast()) };
    match scale_type {
        ScaleType::F16 | ScaleType::Pair => _mm256_cvtph_ps(bits),
        ScaleType::BF16 => _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits))),
    }
}

/// Asks for the bytes that row `row` of several side by side needs `ahead` bytes after block `b`:
/// past its end those of the row that is read next in its place, `further` bytes after it.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn prefetch(row: &[u8], b: usize, ahead: usize, further: usize) {
    let at = BLOCK * b + ahead;
    let at = if at < row.len() { at } else { at + further };
    for line in 0..2 {
        // an address that is not mapped does no harm
        _mm_prefetch::<_MM_HINT_T0>(row.as_ptr().wrapping_add(at + 64 * line).cast());
    }
}
