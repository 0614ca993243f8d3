//! Sixteen rows of sixteen lanes turned around.

use std::arch::x86_64::*;

use crate::arch::LANES;

#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::arch::x86_64) fn transpose(x: &[__m512i; LANES]) -> [__m512i; LANES] {
    // four rows by four: quarter q of `fours[4 i + j]` is column 4 q + j of rows 4 i ..
    let mut fours = *x;
    for i in 0..4 {
        let [a, b, c, d] = [x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]];
        let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
        let (ab2, cd2) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
        fours[4 * i] = _mm512_unpacklo_epi64(ab, cd);
        fours[4 * i + 1] = _mm512_unpackhi_epi64(ab, cd);
        fours[4 * i + 2] = _mm512_unpacklo_epi64(ab2, cd2);
        fours[4 * i + 3] = _mm512_unpackhi_epi64(ab2, cd2);
    }
    let mut out = *x;
    for j in 0..4 {
        let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
        let (ab, cd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d));
        let (ab2, cd2) = (_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(c, d));
        out[j] = _mm512_shuffle_i32x4::<0x88>(ab, cd);
        out[8 + j] = _mm512_shuffle_i32x4::<0xdd>(ab, cd);
        out[4 + j] = _mm512_shuffle_i32x4::<0x88>(ab2, cd2);
        out[12 + j] = _mm512_shuffle_i32x4::<0xdd>(ab2, cd2);
    }
    out
}

/// Codes of sixteen rows, row after row, to four of each in turn.
#[target_feature(enable = "avx512f")]
pub(super) fn interleave(rows: &[i8], stride: usize, block: &mut [i8]) {
    for (c, block) in block.chunks_exact_mut(64 * LANES).enumerate() {
        let mut tile = [_mm512_setzero_si512(); LANES];
        for (lane, row) in tile.iter_mut().zip(rows.chunks_exact(stride)) {
            let codes = &row[64 * c..][..64];
            // SAFETY: 64 bytes were just checked.
            *lane = unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) };
        }
        for (quad, block) in transpose(&tile).into_iter().zip(block.chunks_exact_mut(64)) {
            // SAFETY: a chunk has 64 bytes.
            unsafe { _mm512_storeu_si512(block.as_mut_ptr().cast(), quad) };
        }
    }
}
