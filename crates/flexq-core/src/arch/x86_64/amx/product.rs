//! Panels times activations on tiles: 16 weight rows with 16 rows of activations and 64
//! columns an instruction.
//!
//! While the tiles work on a segment, vectors scale the sums of the segment before.

use std::arch::x86_64::*;

use super::super::avx512::{self, Engine, Job, SUMS, TILE, add_segment};
use super::tiles::{self, Configured};
use crate::arch::{ACTIVATION_GROUP, LANES, QuantizedRows, Scratch, Stripe, Weights};

const ENGINE: Engine = Engine { width: 2, multiply: multiply_job };

/// # Safety
/// The processor has AVX-512 and tiles, which the process may use.
pub(super) unsafe fn multiply(
    w: &Weights<'_>,
    x: &QuantizedRows,
    out: &mut Stripe<'_>,
    scratch: &mut Scratch,
) {
    // SAFETY: the caller's.
    unsafe {
        let _configured = Configured::new(x.segment.min(64) as u16);
        avx512::multiply(w, x, out, scratch, ENGINE);
    }
}

fn multiply_job(job: &mut Job<'_>) {
    let groups = job.panel.len() / (job.depth.len() * 2 * TILE);
    for g in (0..groups).step_by(2) {
        // SAFETY: `multiply` configured the tiles on a processor that has them and AVX-512.
        unsafe {
            match ((groups - g).min(2), (job.blocks - job.first).min(2)) {
                (1, 1) => multiply_groups::<1, 1>(job, g),
                (1, _) => multiply_groups::<1, 2>(job, g),
                (_, 1) => multiply_groups::<2, 1>(job, g),
                _ => multiply_groups::<2, 2>(job, g),
            }
        }
    }
}

/// Integer sums of a segment: up to two groups with up to two blocks.
#[repr(C, align(64))]
struct Dots([[i32; SUMS]; 4]);

/// # Safety
/// Tiles are configured for the segment.
#[target_feature(enable = "avx512f")]
unsafe fn multiply_groups<const G: usize, const B: usize>(job: &mut Job<'_>, g: usize) {
    let x = job.x;
    let (depth, segment) = (job.depth.len(), x.segment);
    let segments = depth * ACTIVATION_GROUP / segment;
    let step = segment.min(64);
    let tiles_of_group = depth * 2 * TILE;
    let panel = &job.panel[g * tiles_of_group..][..G * tiles_of_group];
    let mut dots = [const { Dots([[0; SUMS]; 4]) }; 2];
    for s in 0..segments {
        let current = &mut dots[s % 2];
        for b in 0..B {
            let at =
                (job.first + b) * (x.stride / segment) + job.depth.start * ACTIVATION_GROUP / segment + s;
            let offsets = x.offsets[at * LANES..][..LANES].as_ptr();
            // SAFETY: sixteen integers were just checked.
            unsafe {
                match b {
                    0 => tiles::start::<0>(offsets),
                    _ => tiles::start::<1>(offsets),
                }
                if G == 2 {
                    match b {
                        0 => tiles::start::<2>(offsets),
                        _ => tiles::start::<3>(offsets),
                    }
                }
            }
        }
        for column in (s * segment..(s + 1) * segment).step_by(step) {
            let w = &panel[column / 64 * TILE + column % 64..];
            let start = (job.first * x.stride + job.depth.start * ACTIVATION_GROUP + column) * LANES;
            let codes = &x.codes[start..][..(B - 1) * x.stride * LANES + step * LANES];
            debug_assert!(w.len() >= (G - 1) * tiles_of_group + TILE - column % 64, "tiles of every group");
            // SAFETY: the panel has tiles of G groups, the codes those of B blocks.
            unsafe { tiles::multiply::<G, B>(w.as_ptr(), tiles_of_group, codes.as_ptr(), x.stride * LANES) };
        }
        // SAFETY: each array has 256 integers.
        unsafe {
            tiles::store::<0>(current.0[0].as_mut_ptr());
            if B == 2 {
                tiles::store::<1>(current.0[1].as_mut_ptr());
            }
            if G == 2 {
                tiles::store::<2>(current.0[2].as_mut_ptr());
                if B == 2 {
                    tiles::store::<3>(current.0[3].as_mut_ptr());
                }
            }
        }
        if s > 0 {
            add::<G, B>(job, g, s - 1, segments, &dots[(s - 1) % 2]);
        }
    }
    add::<G, B>(job, g, segments - 1, segments, &dots[(segments - 1) % 2]);
}

/// Scales the integer sums of segment `s` and adds them to the others.
#[inline]
#[target_feature(enable = "avx512f")]
fn add<const G: usize, const B: usize>(job: &mut Job<'_>, g: usize, s: usize, segments: usize, dots: &Dots) {
    let x = job.x;
    let group = job.depth.start + s * x.segment / ACTIVATION_GROUP;
    for b in 0..B {
        let block = job.first + b;
        let x_scales = &x.scales[(block * (x.stride / ACTIVATION_GROUP) + group) * LANES..][..LANES];
        // SAFETY: sixteen floats were just checked.
        let x_scales = unsafe { _mm512_loadu_ps(x_scales.as_ptr()) };
        for i in 0..G {
            let w_scales = &job.scales[((g + i) * segments + s) * LANES..][..LANES];
            let sums = &mut job.sums[((g + i) * job.blocks + block) * SUMS..][..SUMS];
            for r in 0..LANES {
                // SAFETY: row r of a tile of sixteen.
                let dots = unsafe { _mm512_load_si512(dots.0[2 * i + b].as_ptr().add(LANES * r).cast()) };
                add_segment(dots, x_scales, w_scales[r], &mut sums[LANES * r..]);
            }
        }
    }
}
