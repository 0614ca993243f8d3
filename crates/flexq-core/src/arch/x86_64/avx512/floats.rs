//! Few rows of f32 activations: weights pass through once, four rows side by side.

use std::arch::x86_64::*;
use std::array::from_fn;

use super::super::avx2::from_f32;
use super::float_tile;
use super::scales::Rows;
use super::unpack::{BLOCK, block};
use crate::arch::{ACTIVATION_GROUP, Buffer, MAX_STRIPE, Scratch, Stripe, Weights};
use crate::scheme::ScaleType;

/// Rows of activations up to which weights stream through registers.
const MAX_STREAMED: usize = 4;
/// Weight rows side by side.
const SIDE: usize = 4;
/// How far ahead of the loads memory is asked for, in bytes of each row; past its end, in the row
/// that comes next in its place.
const AHEAD: usize = 1024;

/// Few rows are padded with zeros to whole blocks of 128, and every 64 columns reordered so
/// that those of the same place in their four come together (0 4 8 .. 60, 1 5 .. 61 and so
/// on): codes of the same place lie alike in their 24 bits.
#[target_feature(enable = "avx512f")]
pub(super) fn arrange(x: &[f32], columns: usize, arranged: &mut Buffer<f32>) {
    if x.len() / columns > MAX_STREAMED {
        return float_tile::arrange(x, columns, arranged);
    }
    let stride = columns.next_multiple_of(ACTIVATION_GROUP);
    arranged.resize(x.len() / columns * stride);
    arranged.fill(0.0);
    for (row, arranged) in x.chunks_exact(columns).zip(arranged.chunks_exact_mut(stride)) {
        for (x, arranged) in row.chunks(64).zip(arranged.chunks_exact_mut(64)) {
            for (k, &x) in x.iter().enumerate() {
                arranged[k % 4 * 16 + k / 4] = x;
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,fma,f16c")]
pub(super) fn multiply(w: &Weights<'_>, x: &[f32], out: &mut Stripe<'_>, scratch: &mut Scratch) {
    if out.rows() > MAX_STREAMED {
        return float_tile::multiply(w, x, out, scratch);
    }
    match w.segment_width() {
        16 => multiply_segments::<8>(w, x, out),
        32 => multiply_segments::<4>(w, x, out),
        64 => multiply_segments::<2>(w, x, out),
        _ => multiply_segments::<1>(w, x, out),
    }
}

/// `S`: segments per block.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,fma,f16c")]
fn multiply_segments<const S: usize>(w: &Weights<'_>, x: &[f32], out: &mut Stripe<'_>) {
    match out.rows() {
        0 => {}
        1 => multiply_rows::<S, 1>(w, x, out),
        2 => multiply_rows::<S, 2>(w, x, out),
        3 => multiply_rows::<S, 3>(w, x, out),
        _ => multiply_rows::<S, MAX_STREAMED>(w, x, out),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,fma,f16c")]
fn multiply_rows<const S: usize, const M: usize>(w: &Weights<'_>, x: &[f32], out: &mut Stripe<'_>) {
    let columns = out.columns();
    let stride = w.columns.next_multiple_of(ACTIVATION_GROUP);
    let mut y = [[0.0f32; MAX_STRIPE]; M];
    for n in columns.clone().step_by(SIDE) {
        let rows = Rows { n, end: columns.end };
        let packed: [&[u8]; SIDE] = from_fn(|r| w.packed_row(rows.row(r)));
        let scales: [&[u8]; SIDE] = from_fn(|r| w.scales_row(rows.row(r)));
        let mut sums = [[_mm512_setzero_ps(); M]; SIDE];
        for b in 0..stride / ACTIVATION_GROUP {
            let mut x_blocks: [&[f32]; M] = [&[]; M];
            for (m, block) in x_blocks.iter_mut().enumerate() {
                *block = &x[m * stride + ACTIVATION_GROUP * b..][..ACTIVATION_GROUP];
            }
            add_block::<S, M>(w, b, packed, scales, x_blocks, &mut sums);
        }
        for (r, sums) in sums.into_iter().enumerate().take(columns.end - n) {
            for (y, sum) in y.iter_mut().zip(sums) {
                y[n - columns.start + r] = _mm512_reduce_add_ps(sum);
            }
        }
    }
    let dtype = out.dtype();
    for (m, y) in y.iter().enumerate() {
        from_f32(dtype, &y[..columns.len()], out.row_mut(m));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,f16c")]
fn add_block<const S: usize, const M: usize>(
    w: &Weights<'_>,
    b: usize,
    packed: [&[u8]; SIDE],
    scales: [&[u8]; SIDE],
    x: [&[f32]; M],
    sums: &mut [[__m512; M]; SIDE],
) {
    let width = w.scale_width();
    let bytes = packed[0].len();
    let ahead = if BLOCK * b + AHEAD < bytes { AHEAD } else { AHEAD + (SIDE - 1) * bytes };
    for (r, sums) in sums.iter_mut().enumerate() {
        for line in 0..2 {
            let at = BLOCK * b + 64 * line + ahead;
            _mm_prefetch::<_MM_HINT_T0>(packed[r].as_ptr().wrapping_add(at).cast());
        }
        let mut padded = [0; BLOCK];
        let packed = block(packed[r], b, &mut padded);
        let mut halves = [[_mm512_setzero_ps(); M]; 2];
        for (half, parts) in halves.iter_mut().enumerate() {
            for (i, codes) in signed_codes(packed, half).into_iter().enumerate() {
                for (part, x) in parts.iter_mut().zip(x) {
                    let x = &x[64 * half + 16 * i..][..16];
                    // SAFETY: sixteen floats were just checked.
                    let x = unsafe { _mm512_loadu_ps(x.as_ptr()) };
                    *part = _mm512_fmadd_ps(codes, x, *part);
                }
            }
        }
        // past the end of a row activations are zero and any scale does
        let scale = |s: usize| {
            to_f32(
                w.scale_type,
                w.scale_at(scales[r], (ACTIVATION_GROUP * b + ACTIVATION_GROUP / S * s) / width),
            )
        };
        let [low, high] = halves;
        if S == 1 {
            let scale = scale(0);
            for (sum, (low, high)) in sums.iter_mut().zip(low.into_iter().zip(high)) {
                *sum = _mm512_fmadd_ps(_mm512_add_ps(low, high), scale, *sum);
            }
            continue;
        }
        for (half, parts) in [low, high].into_iter().enumerate() {
            // lanes hold four columns each, in order
            let mut scales = scale(half * S / 2);
            for s in 1..S / 2 {
                scales = _mm512_mask_mov_ps(scales, 0xffff << (32 / S * s), scale(half * S / 2 + s));
            }
            for (sum, part) in sums.iter_mut().zip(parts) {
                *sum = _mm512_fmadd_ps(part, scales, *sum);
            }
        }
    }
}

/// A stored scale in all lanes.
#[inline]
#[target_feature(enable = "avx512f,f16c")]
fn to_f32(scale_type: ScaleType, bits: u16) -> __m512 {
    match scale_type {
        ScaleType::F16 | ScaleType::Pair => {
            _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits))))
        }
        ScaleType::BF16 => _mm512_set1_ps(f32::from_bits(u32::from(bits) << 16)),
    }
}

/// Codes `64 half ..` of a block as f32; vector `i` holds those of place `i` in their four.
///
/// # How
/// Every lane gets the three bytes of four codes. Code `i` is cut out where it lies, bit `6 i`
/// on, and set into the fraction of `2^(23 - 6 i)`, whose last places it then counts; what was
/// added is subtracted, together with the 32 that codes are stored with.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn signed_codes(block: &[u8; BLOCK], half: usize) -> [__m512; 4] {
    const AND_OR: i32 = 0xea;
    // the second load begins sixteen bytes early to end with the block
    // SAFETY: bytes 0 .. 64 or 32 .. 96 of 96.
    let packed = unsafe { _mm512_loadu_si512(block.as_ptr().add(32 * half.min(1)).cast()) };
    let start = if half == 0 { 0 } else { 0x0010_1010 };
    let three = |i: i32| 0x0002_0100 + 0x0003_0303 * i + start;
    #[rustfmt::skip]
    let places = _mm512_setr_epi32(
        three(0), three(1), three(2), three(3), three(4), three(5), three(6), three(7),
        three(8), three(9), three(10), three(11), three(12), three(13), three(14), three(15),
    );
    let quads = _mm512_permutexvar_epi8(places, packed);
    let places = [quads, quads, quads, _mm512_srli_epi32::<6>(quads)];
    let mut codes = [_mm512_setzero_ps(); 4];
    for (i, codes) in codes.iter_mut().enumerate() {
        let place = 6 * i.min(2) as i32;
        let one = _mm512_set1_epi32((150 - place) << 23);
        let bits = _mm512_ternarylogic_epi32::<AND_OR>(places[i], _mm512_set1_epi32(63 << place), one);
        let added = _mm512_add_ps(_mm512_castsi512_ps(one), _mm512_set1_ps(32.0));
        *codes = _mm512_sub_ps(_mm512_castsi512_ps(bits), added);
    }
    codes
}
