//! Sixteen weight rows side by side: four codes of each in turn, so that a vector of
//! eight lanes multiplies four columns of eight rows with the same four activations.

use std::arch::x86_64::*;
use std::ops::Range;

use super::memory::{load_f32, store_32, store_f32};
use super::rows::Rows;
use super::unpack::{BLOCK, block, unpack_32};
use crate::arch::Weights;

/// Rows of a panel.
pub(super) const ROWS: usize = 16;
/// Bytes of four columns of a panel.
pub(super) const QUAD: usize = 4 * ROWS;

impl Rows {
    /// Codes of columns `128 b + 32 i ..` of rows `8 h ..` of the panel: every vector holds
    /// four columns of eight rows.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn transposed(blocks: [&[u8; BLOCK]; 8], i: usize) -> [__m256i; 8] {
        let mut rows = [_mm256_setzero_si256(); 8];
        for (row, block) in rows.iter_mut().zip(blocks) {
            *row = unpack_32(block, i);
        }
        transpose(rows)
    }

    /// Columns `128 b ..` of rows `8 h ..`.
    #[inline]
    fn blocks<'a>(
        self,
        w: &Weights<'a>,
        b: usize,
        h: usize,
        padded: &'a mut [[u8; BLOCK]; 8],
    ) -> [&'a [u8; BLOCK]; 8] {
        let mut blocks = [&[0; BLOCK]; 8];
        for ((r, rows), padded) in blocks.iter_mut().enumerate().zip(padded) {
            *rows = block(w.packed_row(self.row(8 * h + r)), b, padded);
        }
        blocks
    }

    /// Unpacks the blocks `blocks` of 128 columns into `panel`, `[columns / 4, 16 rows, 4]`.
    #[target_feature(enable = "avx2")]
    pub fn unpack_codes(self, w: &Weights<'_>, blocks: Range<usize>, panel: &mut [u8]) {
        for (b, panel) in blocks.zip(panel.chunks_exact_mut(32 * QUAD)) {
            for h in 0..2 {
                let mut padded = [[0; BLOCK]; 8];
                let packed = self.blocks(w, b, h, &mut padded);
                for i in 0..4 {
                    for (q, codes) in Self::transposed(packed, i).into_iter().enumerate() {
                        store_32(panel, (8 * i + q) * QUAD + 32 * h, codes);
                    }
                }
            }
        }
    }

    /// Dequantizes block `b` of 128 columns into `panel`, `[128, 16 rows]`.
    #[target_feature(enable = "avx2,f16c")]
    pub fn dequantize(self, w: &Weights<'_>, b: usize, panel: &mut [f32]) {
        let segment = w.segment_width();
        let mut scales = [0.0; 8 * ROWS];
        let scales = &mut scales[..128 / segment * ROWS];
        self.scales::<ROWS>(w, 128 * b / segment, segment, scales);
        for h in 0..2 {
            let mut padded = [[0; BLOCK]; 8];
            let packed = self.blocks(w, b, h, &mut padded);
            for i in 0..4 {
                for (q, codes) in Self::transposed(packed, i).into_iter().enumerate() {
                    let column = 32 * i + 4 * q;
                    let scales = load_f32(scales, column / segment * ROWS + 8 * h);
                    let low = _mm256_set1_epi32(63);
                    let columns = [
                        _mm256_and_si256(codes, low),
                        _mm256_and_si256(_mm256_srli_epi32::<8>(codes), low),
                        _mm256_and_si256(_mm256_srli_epi32::<16>(codes), low),
                        _mm256_srli_epi32::<24>(codes),
                    ];
                    for (c, codes) in columns.into_iter().enumerate() {
                        let codes = _mm256_sub_epi32(codes, _mm256_set1_epi32(32));
                        let values = _mm256_mul_ps(_mm256_cvtepi32_ps(codes), scales);
                        store_f32(panel, (column + c) * ROWS + 8 * h, values);
                    }
                }
            }
        }
    }
}

/// Transposes eight rows of eight 32-bit lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(x: [__m256i; 8]) -> [__m256i; 8] {
    let [a, b, c, d, e, f, g, h] = x;
    let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
    let (ef, gh) = (_mm256_unpacklo_epi32(e, f), _mm256_unpacklo_epi32(g, h));
    let (ab2, cd2) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
    let (ef2, gh2) = (_mm256_unpackhi_epi32(e, f), _mm256_unpackhi_epi32(g, h));
    let upper = [
        _mm256_unpacklo_epi64(ab, cd),
        _mm256_unpackhi_epi64(ab, cd),
        _mm256_unpacklo_epi64(ab2, cd2),
        _mm256_unpackhi_epi64(ab2, cd2),
    ];
    let lower = [
        _mm256_unpacklo_epi64(ef, gh),
        _mm256_unpackhi_epi64(ef, gh),
        _mm256_unpacklo_epi64(ef2, gh2),
        _mm256_unpackhi_epi64(ef2, gh2),
    ];
    // the same lanes of all rows meet: not in a closure, which would stay a call, see the module
    let mut columns = x;
    for i in 0..4 {
        columns[i] = _mm256_permute2x128_si256::<0x20>(upper[i], lower[i]);
        columns[4 + i] = _mm256_permute2x128_si256::<0x31>(upper[i], lower[i]);
    }
    columns
}
