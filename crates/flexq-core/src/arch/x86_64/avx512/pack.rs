//! Codes to the 6-bit stream, 64 at a time.

use std::arch::x86_64::*;

use super::memory::{load_codes, places, store_48};
use crate::arch::scalar;

/// Drops every fourth byte.
const DENSE: [u8; 64] = {
    let mut places = [0; 64];
    let mut i = 0;
    while i < 48 {
        places[i] = (i / 3 * 4 + i % 3) as u8;
        i += 1;
    }
    places
};

/// Packs 64 codes, stored as `q + 32` in bytes in order, into the lower 48 bytes.
#[inline]
#[target_feature(enable = "avx512bw,avx512vbmi")]
pub(super) fn pack_64(codes: __m512i) -> __m512i {
    // u0 + 64 u1 in every 16 bits, then four codes in every 32
    let pairs = _mm512_maddubs_epi16(codes, _mm512_set1_epi16(0x4001));
    let quads = _mm512_madd_epi16(pairs, _mm512_set1_epi32(0x1000_0001));
    _mm512_permutexvar_epi8(places(&DENSE), quads)
}

#[target_feature(enable = "avx512bw,avx512vbmi")]
pub(super) fn pack_row(codes: &[i8], packed: &mut [u8]) {
    let (blocks, tail) = codes.as_chunks::<64>();
    let (packed, packed_tail) = packed.split_at_mut(48 * blocks.len());
    for (codes, packed) in blocks.iter().zip(packed.as_chunks_mut().0) {
        let codes = load_codes(codes);
        store_48(packed, pack_64(_mm512_add_epi8(codes, _mm512_set1_epi8(32))));
    }
    scalar::pack_row(tail, packed_tail);
}
