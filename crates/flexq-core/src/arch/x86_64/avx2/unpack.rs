//! The 6-bit stream to codes, 32 at a time.

use std::arch::asm;
use std::arch::x86_64::*;

use super::memory::load_halves;
use crate::arch::scalar;

/// Bytes of 128 packed codes.
pub(in crate::arch::x86_64) const BLOCK: usize = 96;

/// Codes `32 i .. 32 i + 32` of a block of 128, as unsigned bytes in order; `i` is below 4.
///
/// # How
/// Each half of the vector gets the 12 bytes of 16 codes, spread so that the bits of
/// every code lie in a 16-bit word from where one multiplication moves them to their
/// byte: right by 8 and 4 bits (the upper half of a product) for the first and third of
/// four, left by 2 and 6 for the second and fourth.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn unpack_32(block: &[u8; BLOCK], i: usize) -> __m256i {
    // the last load begins four bytes early to end with the block
    let (packed, shift) =
        if i == 3 { (load_halves(block, 72, 80), 4) } else { (load_halves(block, 24 * i, 24 * i + 12), 0) };
    let odd_places = spread([-1, 0, 1, 2], shift);
    let even_places = spread([0, 1, 2, -1], shift);
    let right = multiply_high(_mm256_shuffle_epi8(packed, odd_places), _mm256_set1_epi32(0x1000_0100));
    let left = multiply_low(_mm256_shuffle_epi8(packed, even_places), _mm256_set1_epi32(0x0040_0004));
    _mm256_or_si256(
        _mm256_and_si256(right, _mm256_set1_epi16(0x003f)),
        _mm256_and_si256(left, _mm256_set1_epi16(0x3f00)),
    )
}

/// The upper halves of 16-bit products, as one instruction: the compiler knows better ways to
/// multiply by a power of two, but none for lanes that differ, and needs ten.
#[inline]
#[target_feature(enable = "avx2")]
fn multiply_high(x: __m256i, y: __m256i) -> __m256i {
    let product;
    // SAFETY: an instruction of AVX2 on registers.
    unsafe {
        asm!("vpmulhuw {}, {}, {}", lateout(ymm_reg) product, in(ymm_reg) x, in(ymm_reg) y,
            options(pure, nomem, nostack, preserves_flags));
    }
    product
}

/// The lower halves; see [`multiply_high`].
#[inline]
#[target_feature(enable = "avx2")]
fn multiply_low(x: __m256i, y: __m256i) -> __m256i {
    let product;
    // SAFETY: an instruction of AVX2 on registers.
    unsafe {
        asm!("vpmullw {}, {}, {}", lateout(ymm_reg) product, in(ymm_reg) x, in(ymm_reg) y,
            options(pure, nomem, nostack, preserves_flags));
    }
    product
}

/// Block `b` of a packed row. A last, shorter one is padded in `padded`: activations are
/// padded with zeros, so its codes do not matter.
#[inline]
pub(in crate::arch::x86_64) fn block<'a>(
    row: &'a [u8],
    b: usize,
    padded: &'a mut [u8; BLOCK],
) -> &'a [u8; BLOCK] {
    let rest = &row[BLOCK * b..];
    rest.first_chunk().unwrap_or_else(|| {
        padded[..rest.len()].copy_from_slice(rest);
        padded
    })
}

/// A shuffle that puts the given ones of every three bytes into four; -1 leaves a zero.
/// The bytes of the upper half begin at `shift`.
#[inline]
#[target_feature(enable = "avx2")]
fn spread(bytes: [i8; 4], shift: i8) -> __m256i {
    let [a, b, c, d] = bytes;
    let quad = |j: i8, shift: i8| {
        let at = |byte: i8| if byte < 0 { -1 } else { byte + 3 * j + shift };
        i32::from_le_bytes([at(a) as u8, at(b) as u8, at(c) as u8, at(d) as u8])
    };
    _mm256_setr_epi32(
        quad(0, 0),
        quad(1, 0),
        quad(2, 0),
        quad(3, 0),
        quad(0, shift),
        quad(1, shift),
        quad(2, shift),
        quad(3, shift),
    )
}

#[target_feature(enable = "avx2")]
pub(super) fn unpack_row(packed: &[u8], codes: &mut [i8]) {
    let offset = _mm256_set1_epi8(32);
    let (blocks, tail) = codes.as_chunks_mut::<128>();
    let (packed, packed_tail) = packed.split_at(BLOCK * blocks.len());
    for (block, codes) in packed.as_chunks().0.iter().zip(blocks) {
        for (i, codes) in codes.chunks_exact_mut(32).enumerate() {
            let signed = _mm256_sub_epi8(unpack_32(block, i), offset);
            // SAFETY: the chunk has 32 bytes.
            unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), signed) };
        }
    }
    scalar::unpack_row(packed_tail, tail);
}
