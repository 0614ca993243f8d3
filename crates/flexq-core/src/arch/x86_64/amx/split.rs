//! Numbers as sums of bf16: their leading 8 bits, the 8 bits after those, and the rest.

use std::arch::x86_64::*;

use super::super::avx512::{VECTORS, load, transpose};
use crate::arch::{ACTIVATION_GROUP, LANES};
use crate::rows::FloatRows;

/// Pairs of a term of a block.
const PAIRS: usize = ACTIVATION_GROUP / 2 * LANES;

/// Splits columns `first ..` of rows `row ..` into as many terms as there is room for,
/// `[terms, 64, 16]`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn split_block(x: &FloatRows<'_>, row: usize, first: usize, terms: &mut [u32]) {
    let size = x.dtype().size();
    let columns = ACTIVATION_GROUP.min(x.columns() - first);
    let mut tiles = [[[_mm512_setzero_si512(); LANES]; VECTORS / 2]; 3];
    let terms = terms.chunks_exact_mut(PAIRS);
    let count = terms.len();
    for lane in 0..LANES.min(x.rows() - row) {
        let mut rest = load(x.dtype(), &x.row(row + lane)[first * size..][..columns * size]);
        for tiles in tiles.iter_mut().take(count) {
            for (tile, rest) in tiles.iter_mut().zip(rest.as_chunks_mut::<2>().0) {
                let [a, b] = rest;
                tile[lane] = join(take_leading(a), take_leading(b));
            }
        }
    }
    for (tiles, terms) in tiles.iter().zip(terms) {
        for (tile, pairs) in tiles.iter().zip(terms.chunks_exact_mut(LANES * LANES)) {
            for (pair, pairs) in transpose(tile).into_iter().zip(pairs.chunks_exact_mut(LANES)) {
                // SAFETY: a chunk has sixteen pairs.
                unsafe { _mm512_storeu_si512(pairs.as_mut_ptr().cast(), pair) };
            }
        }
    }
}

/// The leading 8 bits of numbers, which are taken from them; NaN stays NaN and infinity is taken whole.
#[inline]
#[target_feature(enable = "avx512f")]
fn take_leading(x: &mut __m512) -> __m512i {
    const QUIET: i32 = 0x0040_0000;
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(*x, *x);
    let bits = _mm512_and_si512(_mm512_castps_si512(*x), _mm512_set1_epi32(0xffff_0000_u32 as i32));
    let bits = _mm512_mask_or_epi32(bits, nan, bits, _mm512_set1_epi32(QUIET));
    let magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(i32::MAX));
    let finite = _mm512_cmplt_epi32_mask(magnitude, _mm512_set1_epi32(f32::INFINITY.to_bits() as i32));
    *x = _mm512_maskz_sub_ps(finite, *x, _mm512_castsi512_ps(bits));
    bits
}

/// The upper halves of 32 numbers, in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn join(a: __m512i, b: __m512i) -> __m512i {
    let mut odd = [0u16; 32];
    for (i, odd) in odd.iter_mut().enumerate() {
        *odd = 2 * i as u16 + 1;
    }
    // SAFETY: the array has 64 bytes.
    let odd = unsafe { _mm512_loadu_si512(odd.as_ptr().cast()) };
    _mm512_permutex2var_epi16(a, odd, b)
}
