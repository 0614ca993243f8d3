//! Panels times activations on tiles: 16 weight rows with 16 rows of activations and 64
//! columns an instruction.
//!
//! While the tiles work on two segments, vectors scale the sums of the two before: step by
//! step in turn, because either alone would leave the other's units idle.

use std::arch::x86_64::*;

use super::super::avx512::{self, Engine, Job, SUMS, TILE};
use super::tiles::{self, Configured};
use crate::arch::{ACTIVATION_GROUP, LANES, QuantizedRows, Scratch, Stripe, Weights};

const ENGINE: Engine = Engine { width: 2, signed: true, multiply: multiply_job };

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
    // SAFETY: `multiply` configured the tiles on a processor that has them and AVX-512.
    unsafe {
        match job.blocks - job.first {
            1 => multiply_blocks::<1>(job),
            _ => multiply_blocks::<2>(job),
        }
    }
}

/// Integer sums of two segments: two groups with two blocks.
#[repr(C, align(64))]
struct Dots([[[i32; SUMS]; 4]; 2]);

/// Sums on their way: one or two groups from `group` on, one or two segments from `segment` on.
#[derive(Clone, Copy)]
struct Part {
    group: usize,
    groups: usize,
    segment: usize,
    segments: usize,
}

/// Quarters of a part that vectors scale in one go.
const QUARTERS: usize = 4;

/// # Safety
/// Tiles are configured for the segment.
#[target_feature(enable = "avx512f")]
unsafe fn multiply_blocks<const B: usize>(job: &mut Job<'_>) {
    let x = job.x;
    let depth = job.depth.len();
    let step = x.segment.min(64);
    let segments = depth * ACTIVATION_GROUP / x.segment;
    let tiles_of_group = depth * 2 * TILE;
    let groups = job.panel.len() / tiles_of_group;
    let mut dots = [const { Dots([[[0; SUMS]; 4]; 2]) }; 2];
    let [mut current, mut previous] = dots.each_mut();
    let mut waiting: Option<Part> = None;
    for group in (0..groups).step_by(2) {
        for segment in (0..segments).step_by(2) {
            let part =
                Part { group, groups: 2.min(groups - group), segment, segments: 2.min(segments - segment) };
            let panel = &job.panel[group * tiles_of_group..][..part.groups * tiles_of_group];
            let steps = part.segments * x.segment / step;
            for i in 0..steps {
                let column = segment * x.segment + i * step;
                let start = (job.first * x.stride + job.depth.start * ACTIVATION_GROUP + column) * LANES;
                let codes = &x.codes[start..][..(B - 1) * x.stride * LANES + step * LANES];
                let w = &panel[column / 64 * TILE + column % 64..];
                // SAFETY: the panel has tiles of so many groups, the codes those of B blocks.
                unsafe {
                    if (i * step).is_multiple_of(x.segment) {
                        tiles::clear();
                    }
                    let (x, x_next) = (codes.as_ptr(), x.stride * LANES);
                    match part.groups {
                        1 => tiles::multiply::<1, B>(w.as_ptr(), 0, x, x_next),
                        _ => tiles::multiply::<2, B>(w.as_ptr(), tiles_of_group, x, x_next),
                    }
                }
                if let Some(part) = waiting {
                    for quarter in i * QUARTERS / steps..(i + 1) * QUARTERS / steps {
                        add_quarter::<B>(job, part, segments, quarter, previous);
                    }
                }
                if ((i + 1) * step).is_multiple_of(x.segment) {
                    // SAFETY: tiles are configured.
                    unsafe { store(&mut current.0[i * step / x.segment]) };
                }
            }
            waiting = Some(part);
            (current, previous) = (previous, current);
        }
    }
    if let Some(part) = waiting {
        for quarter in 0..QUARTERS {
            add_quarter::<B>(job, part, segments, quarter, previous);
        }
    }
}

/// Stores the sums of all tiles.
///
/// # Safety
/// Tiles are configured.
#[inline]
unsafe fn store(dots: &mut [[i32; SUMS]; 4]) {
    // SAFETY: the caller's; each array has 256 integers.
    unsafe {
        tiles::store::<0>(dots[0].as_mut_ptr());
        tiles::store::<1>(dots[1].as_mut_ptr());
        tiles::store::<2>(dots[2].as_mut_ptr());
        tiles::store::<3>(dots[3].as_mut_ptr());
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add_quarter<const B: usize>(job: &mut Job<'_>, part: Part, segments: usize, quarter: usize, dots: &Dots) {
    match (part.groups > quarter / 2, part.segments) {
        (false, _) => {}
        (_, 1) => add_rows::<B, 1>(job, part, segments, quarter, dots),
        _ => add_rows::<B, 2>(job, part, segments, quarter, dots),
    }
}

/// Scales the integer sums of eight weight rows and adds them to the others.
#[inline(never)]
#[target_feature(enable = "avx512f")]
fn add_rows<const B: usize, const S: usize>(
    job: &mut Job<'_>,
    part: Part,
    segments: usize,
    quarter: usize,
    dots: &Dots,
) {
    let i = quarter / 2;
    let x = job.x;
    let g = part.group + i;
    let mut x_scales = [[_mm512_setzero_ps(); B]; S];
    let mut w_scales: [&[f32]; S] = [&[]; S];
    for s in 0..S {
        let segment = part.segment + s;
        let group = job.depth.start + segment * x.segment / ACTIVATION_GROUP;
        for (b, x_scales) in x_scales[s].iter_mut().enumerate() {
            let at = (job.first + b) * (x.stride / ACTIVATION_GROUP) + group;
            let scales = &x.scales[at * LANES..][..LANES];
            // SAFETY: sixteen floats were just checked.
            *x_scales = unsafe { _mm512_loadu_ps(scales.as_ptr()) };
        }
        w_scales[s] = &job.scales[(g * segments + segment) * LANES..][..LANES];
    }
    let first = quarter % 2 * 8;
    for w_scales in &mut w_scales {
        *w_scales = &w_scales[first..][..8];
    }
    let sums = &mut job.sums[(g * job.blocks + job.first) * SUMS..][..B * SUMS];
    for r in 0..8 {
        for b in 0..B {
            let sums = &mut sums[b * SUMS + (first + r) * LANES..][..LANES];
            // SAFETY: sixteen floats were just checked.
            let mut y = unsafe { _mm512_loadu_ps(sums.as_ptr()) };
            for s in 0..S {
                // SAFETY: row first + r of a tile of sixteen.
                let dot = unsafe {
                    _mm512_load_si512(dots.0[s][2 * i + b].as_ptr().add(LANES * (first + r)).cast())
                };
                let scale = _mm512_mul_ps(x_scales[s][b], _mm512_set1_ps(w_scales[s][r]));
                y = _mm512_add_ps(y, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(dot)));
            }
            // SAFETY: sixteen floats were just checked.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), y) };
        }
    }
}
