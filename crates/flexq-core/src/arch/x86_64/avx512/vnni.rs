//! Panels times activations, four columns an instruction: sixteen rows of activations in a
//! vector, four codes of one weight row in all lanes of the other.

use std::arch::x86_64::*;

use super::tile::{Job, SUMS, TILE, add_segment};
use crate::arch::{ACTIVATION_GROUP, LANES};

/// Blocks of activations at a time.
pub(super) const WIDTH: usize = 2;

/// Adds the products of a panel with [`WIDTH`] blocks, or what is left, to the sums.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn multiply(job: &mut Job<'_>) {
    match job.blocks - job.first {
        1 => multiply_blocks::<1, 16>(job),
        _ => multiply_blocks::<WIDTH, 8>(job),
    }
}

/// `B` blocks of activations, `R` weight rows at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn multiply_blocks<const B: usize, const R: usize>(job: &mut Job<'_>) {
    let x = job.x;
    let (depth, segment) = (job.depth.len(), x.segment);
    let segments = depth * ACTIVATION_GROUP / segment;
    let per_group = ACTIVATION_GROUP / segment;
    for (g, panel) in job.panel.chunks_exact(depth * 2 * TILE).enumerate() {
        let w_scales = &job.scales[g * segments * LANES..][..segments * LANES];
        for r in (0..LANES).step_by(R) {
            for s in 0..segments {
                let (group, part) = (job.depth.start + s / per_group, s % per_group);
                let mut dots = [[_mm512_setzero_si512(); B]; R];
                let mut codes: [&[i8]; B] = [&[]; B];
                for b in 0..B {
                    let at = group * job.blocks + job.first + b;
                    let offsets = &x.offsets[(at * per_group + part) * LANES..][..LANES];
                    // SAFETY: sixteen integers were just checked.
                    let offsets = unsafe { _mm512_loadu_si512(offsets.as_ptr().cast()) };
                    for dots in &mut dots {
                        dots[b] = offsets;
                    }
                    let start = (at * ACTIVATION_GROUP + part * segment) * LANES;
                    codes[b] = &x.codes[start..][..segment * LANES];
                }
                for q in 0..segment / 4 {
                    let column = s * segment + 4 * q;
                    let w = &panel[column / 64 * TILE + 64 * r + column % 64..][..64 * (R - 1) + 4];
                    let mut x = [_mm512_setzero_si512(); B];
                    for (x, codes) in x.iter_mut().zip(codes) {
                        let codes = &codes[64 * q..][..64];
                        // SAFETY: 64 bytes were just checked.
                        *x = unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) };
                    }
                    for (r, dots) in dots.iter_mut().enumerate() {
                        // SAFETY: four bytes from 64 r on lie in those just checked.
                        let w = unsafe { w.as_ptr().add(64 * r).cast::<i32>().read_unaligned() };
                        for (dot, x) in dots.iter_mut().zip(x) {
                            *dot = _mm512_dpbusd_epi32(*dot, _mm512_set1_epi32(w), x);
                        }
                    }
                }
                for b in 0..B {
                    let block = job.first + b;
                    let x_scales = &x.scales[(group * job.blocks + block) * LANES..][..LANES];
                    // SAFETY: sixteen floats were just checked.
                    let x_scales = unsafe { _mm512_loadu_ps(x_scales.as_ptr()) };
                    let sums = &mut job.sums[(g * job.blocks + block) * SUMS..][..SUMS];
                    for (i, dots) in dots.iter().enumerate() {
                        let w_scale = w_scales[s * LANES + r + i];
                        add_segment(dots[b], x_scales, w_scale, &mut sums[(r + i) * LANES..]);
                    }
                }
            }
        }
    }
}
