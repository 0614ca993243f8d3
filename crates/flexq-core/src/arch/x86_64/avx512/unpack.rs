//! The 6-bit stream to codes, 64 at a time.

use std::arch::x86_64::*;

use super::memory::store_codes;
use crate::arch::scalar;
pub(in crate::arch::x86_64) use crate::arch::x86_64::avx2::unpack::{BLOCK, block};

/// Bytes ahead of the loads that lines are fetched into L1.
const NEAR: usize = 192;

/// [`block`] `b` of a row, while memory `ahead` bytes after it is asked for. Unmapped addresses do no harm.
///
/// Lines come into L2 first and into L1 in time: L1 has few places for lines on their way.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::arch::x86_64) fn block_ahead<'a>(
    row: &'a [u8],
    b: usize,
    ahead: usize,
    padded: &'a mut [u8; BLOCK],
) -> &'a [u8; BLOCK] {
    let (far, near) = (BLOCK * b + ahead, BLOCK * b + NEAR);
    for line in [0, 64] {
        _mm_prefetch::<_MM_HINT_T1>(row.as_ptr().wrapping_add(far + line).cast());
        _mm_prefetch::<_MM_HINT_T0>(row.as_ptr().wrapping_add(near + line).cast());
    }
    block(row, b, padded)
}

/// Codes `64 half ..` of a block of 128, as unsigned bytes in order.
///
/// # How
/// Every eight bytes of the vector get the six bytes of eight codes, from which one
/// instruction takes eight runs of eight bits that begin six bits apart.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(in crate::arch::x86_64) fn unpack_64(block: &[u8; BLOCK], half: usize) -> __m512i {
    // the second load begins sixteen bytes early to end with the block
    // SAFETY: bytes 0 .. 64 or 32 .. 96 of 96.
    let packed = unsafe { _mm512_loadu_si512(block.as_ptr().add(32 * half.min(1)).cast()) };
    let places = if half == 0 { sixes(0) } else { sixes(16) };
    let spread = _mm512_permutexvar_epi8(places, packed);
    let shifts = _mm512_set1_epi64(0x2a24_1e18_120c_0600);
    _mm512_and_si512(_mm512_multishift_epi64_epi8(shifts, spread), _mm512_set1_epi8(63))
}

/// A permutation that puts every six bytes from `start` on into eight.
#[inline]
#[target_feature(enable = "avx512f")]
fn sixes(start: i64) -> __m512i {
    let six = |i: i64| 0x0101_0101_0101 * (start + 6 * i) + 0x0504_0302_0100;
    _mm512_setr_epi64(six(0), six(1), six(2), six(3), six(4), six(5), six(6), six(7))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn unpack_row(packed: &[u8], codes: &mut [i8]) {
    let (blocks, tail) = codes.as_chunks_mut::<128>();
    let (packed, packed_tail) = packed.split_at(BLOCK * blocks.len());
    for (packed, codes) in packed.as_chunks().0.iter().zip(blocks) {
        for (half, codes) in codes.as_chunks_mut().0.iter_mut().enumerate() {
            store_codes(codes, _mm512_sub_epi8(unpack_64(packed, half), _mm512_set1_epi8(32)));
        }
    }
    scalar::unpack_row(packed_tail, tail);
}
