//! Many rows of activations: weights are unpacked once into a panel that stays in L1, and
//! every panel is multiplied with all rows of activations, four at a time.
//!
//! Integer sums of a segment stay in registers; the f32 sums of a panel wait in the
//! scratch memory between blocks of columns.

use std::arch::x86_64::*;

use super::convert::from_f32;
use super::dot::{dot_two, widen};
use super::memory::{load_32, load_f32, store_f32};
use super::panel::{QUAD, ROWS};
use super::rows::Rows;
use super::unpack::BLOCK;
use crate::arch::{ACTIVATION_GROUP, QuantizedRows, Scratch, Stripe, Weights};
use crate::layout::packed_row_bytes;

/// Blocks of 128 columns in a panel.
const BLOCKS: usize = 4;
/// Rows of activations multiplied together.
const TOGETHER: usize = 4;

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn multiply(w: &Weights<'_>, x: &QuantizedRows, out: &mut Stripe<'_>, scratch: &mut Scratch) {
    match x.segment {
        16 => multiply_segments::<1>(w, x, out, scratch),
        32 => multiply_segments::<2>(w, x, out, scratch),
        64 => multiply_segments::<4>(w, x, out, scratch),
        _ => multiply_segments::<8>(w, x, out, scratch),
    }
}

/// Some columns of a panel, ready to be multiplied.
struct Panel<'a> {
    /// First block of 128 columns.
    first: usize,
    blocks: usize,
    /// `[32 blocks, 16 rows, 4]`.
    codes: &'a [u8],
    /// `[segments, 16 rows]`.
    scales: &'a [f32],
}

/// Packed rows of the next panel, which are asked for a part at a time while this one is multiplied.
struct Next {
    start: *const u8,
    row_bytes: usize,
    part: usize,
    parts: usize,
}

impl Next {
    /// What follows `count` blocks from `first` on of rows that have `blocks`, in `parts`.
    fn new(w: &Weights<'_>, rows: Rows, first: usize, count: usize, blocks: usize, parts: usize) -> Self {
        let row_bytes = packed_row_bytes(w.columns);
        let (row, block) = if first + count < blocks { (rows.n, first + count) } else { (rows.n + ROWS, 0) };
        let start = w.packed.as_ptr().wrapping_add(row * row_bytes + BLOCK * block);
        Self { start, row_bytes, part: 0, parts }
    }

    /// Asks for the next part.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn prefetch(&mut self) {
        for row in self.part * ROWS / self.parts..(self.part + 1) * ROWS / self.parts {
            for line in 0..=BLOCKS * BLOCK / 64 {
                // an address that is not mapped does no harm
                let at = self.start.wrapping_add(row * self.row_bytes + 64 * line);
                _mm_prefetch::<_MM_HINT_T1>(at.cast());
            }
        }
        self.part += 1;
    }
}

/// `H`: sixteens of columns per segment.
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_segments<const H: usize>(
    w: &Weights<'_>,
    x: &QuantizedRows,
    out: &mut Stripe<'_>,
    scratch: &mut Scratch,
) {
    let columns = out.columns();
    let blocks = x.stride / ACTIVATION_GROUP;
    let segments = 8 / H;
    let Scratch { scales, panel: codes, sums, .. } = scratch;
    codes.resize(BLOCKS * 32 * QUAD);
    scales.resize(BLOCKS * segments * ROWS);
    for n in columns.clone().step_by(ROWS) {
        let rows = Rows { n, end: columns.end };
        sums.resize(x.rows * ROWS);
        sums.fill(0.0);
        for first in (0..blocks).step_by(BLOCKS) {
            let count = BLOCKS.min(blocks - first);
            rows.unpack_codes(w, first..first + count, codes);
            rows.scales::<ROWS>(w, first * segments, x.segment, scales);
            let panel = Panel { first, blocks: count, codes, scales };
            let parts = x.rows.div_ceil(TOGETHER) * count;
            let mut next = Next::new(w, rows, first, count, blocks, parts);
            let mut m = 0;
            while m < x.rows {
                // remainders are shared out: 3 + 2 rather than 4 + 1
                let left = x.rows - m;
                let height = left.div_ceil(left.div_ceil(TOGETHER));
                let sums = &mut sums[m * ROWS..(m + height) * ROWS];
                match height {
                    1 => multiply_panel::<H, 1>(&panel, &mut next, x, m, sums),
                    2 => multiply_panel::<H, 2>(&panel, &mut next, x, m, sums),
                    3 => multiply_panel::<H, 3>(&panel, &mut next, x, m, sums),
                    _ => multiply_panel::<H, TOGETHER>(&panel, &mut next, x, m, sums),
                }
                m += height;
            }
        }
        let dtype = out.dtype();
        let (start, count) = (n - columns.start, ROWS.min(columns.end - n));
        for (m, sums) in sums.chunks_exact(ROWS).enumerate() {
            let row = &mut out.row_mut(m)[start * dtype.size()..][..count * dtype.size()];
            from_f32(dtype, &sums[..count], row);
        }
    }
}

/// Adds the products of a panel with rows `m .. m + M` of the activations to `sums`, `[M, 16]`.
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_panel<const H: usize, const M: usize>(
    panel: &Panel<'_>,
    next: &mut Next,
    x: &QuantizedRows,
    m: usize,
    sums: &mut [f32],
) {
    let blocks = x.stride / ACTIVATION_GROUP;
    let segments = 8 / H;
    for b in 0..panel.blocks {
        next.prefetch();
        for s in 0..segments {
            let segment = (panel.first + b) * segments + s;
            let mut dots = [[_mm256_setzero_si256(); 2]; M];
            for (i, dots) in dots.iter_mut().enumerate() {
                *dots = [_mm256_set1_epi32(x.offsets[(m + i) * blocks * segments + segment]); 2];
            }
            let codes = &panel.codes[(b * segments + s) * H * 4 * QUAD..][..H * 4 * QUAD];
            let mut rows: [&[i8]; M] = [&[]; M];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = &x.codes[(m + i) * x.stride + segment * H * 16..][..H * 16];
            }
            for (q, codes) in codes.chunks_exact(2 * QUAD).enumerate() {
                let w: [[__m256i; 2]; 2] = [
                    [load_32(codes, 0), load_32(codes, QUAD)],
                    [load_32(codes, 32), load_32(codes, QUAD + 32)],
                ];
                for (dots, row) in dots.iter_mut().zip(rows) {
                    let x = [broadcast(row, 8 * q), broadcast(row, 8 * q + 4)];
                    for (dot, w) in dots.iter_mut().zip(w) {
                        *dot = _mm256_add_epi32(*dot, widen(dot_two(w, x)));
                    }
                }
            }
            let w_scales = &panel.scales[(b * segments + s) * ROWS..][..ROWS];
            for (i, dots) in dots.into_iter().enumerate() {
                let x_scale = _mm256_set1_ps(x.scales[(m + i) * blocks + panel.first + b]);
                for (h, dot) in dots.into_iter().enumerate() {
                    let at = i * ROWS + 8 * h;
                    let scale = _mm256_mul_ps(x_scale, load_f32(w_scales, 8 * h));
                    let product = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(dot));
                    store_f32(sums, at, _mm256_add_ps(load_f32(sums, at), product));
                }
            }
        }
    }
}

/// Four codes from `at` on in every lane.
#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(codes: &[i8], at: usize) -> __m256i {
    let codes = &codes[at..at + 4];
    // SAFETY: four bytes were just checked, and the load may be unaligned.
    _mm256_set1_epi32(unsafe { codes.as_ptr().cast::<i32>().read_unaligned() })
}
