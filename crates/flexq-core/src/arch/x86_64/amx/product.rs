//! Products on tiles: 16 weight rows with 16 rows of activations and 64 columns an instruction.
//!
//! Weights are taken 32 rows and 128 columns at a time: unpacked into a panel that stays in L1,
//! loaded into four tiles, and multiplied with every block of activations, each of which costs
//! two loads, four multiplications and two stores of tiles (half of that where there is one block
//! alone: then sixteen rows at a time). Three things go on side by side, in
//! small pieces, because each alone would leave the units of the others idle: tiles multiply a
//! block, vectors scale the sums of the block before the last, and the panel of the next 128
//! columns is unpacked while memory is asked for those further on.

use std::arch::x86_64::*;
use std::array::from_fn;
use std::ops::Range;

use super::super::avx2::Rows;
use super::super::avx512::{BLOCK, SUMS, block_ahead, unpack_64, write};
use super::panel::{DELAY, GROUPS, ROWS, TILE, TOGETHER, ahead};
use super::tiles::{self, Configured};
use crate::arch::{ACTIVATION_GROUP, LANES, QuantizedRows, Scratch, Stripe, Weights};

/// Bytes of a panel, `[groups, 2 halves of the columns, 16, 64]`.
const PANEL: usize = ROWS * ACTIVATION_GROUP;
/// Bytes of activations that stay in L2 while all weight rows of a stripe pass.
const RESIDENT: usize = 512 << 10;
/// # Safety
/// The processor has AVX-512 and tiles, which the process may use.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,fma,f16c")]
pub(super) unsafe fn multiply(
    w: &Weights<'_>,
    x: &QuantizedRows,
    out: &mut Stripe<'_>,
    scratch: &mut Scratch,
) {
    let Scratch { panel, sums, scales, floats, .. } = scratch;
    let columns = out.columns();
    let blocks = x.rows.div_ceil(LANES);
    let depths = x.stride / ACTIVATION_GROUP;
    let resident = (RESIDENT / (blocks * LANES * ACTIVATION_GROUP)).clamp(1, depths);
    let segments = ACTIVATION_GROUP / x.segment;
    // those of all columns of a pass where other activations follow, or this one's and the next's
    panel.resize(PANEL * if blocks > TOGETHER { resident } else { 2 });
    let panels = panel.as_chunks_mut().0;
    sums.resize(columns.len().div_ceil(ROWS) * GROUPS * blocks * SUMS);
    sums.fill(0.0);
    let groups = if blocks == 1 { 1 } else { GROUPS };
    // SAFETY: the caller's.
    let _configured = unsafe { Configured::new(x.segment.min(64) as u16) };
    for first in (0..depths).step_by(resident) {
        let depth = first..depths.min(first + resident);
        let scales_of_group = depth.len() * segments * LANES;
        scales.resize(groups * scales_of_group);
        for (n, sums) in
            columns.clone().step_by(groups * LANES).zip(sums.chunks_exact_mut(groups * blocks * SUMS))
        {
            for (g, scales) in scales.chunks_exact_mut(scales_of_group).enumerate() {
                let rows = Rows { n: n + g * LANES, end: columns.end };
                rows.scales_of_16(w, first * segments, x.segment, scales);
            }
            let rows = Rows { n, end: columns.end };
            let job = Job { x, packed: from_fn(|r| w.packed_row(rows.row(r))), scales, blocks };
            for first in (0..blocks).step_by(TOGETHER) {
                let pass = Pass {
                    depth: depth.clone(),
                    blocks: first..blocks.min(first + TOGETHER),
                    unpack: first == 0,
                };
                // SAFETY: tiles are configured for the segment.
                unsafe {
                    match (groups, x.segment) {
                        (1, 128) => job.multiply::<1, 1>(&pass, panels, sums),
                        (1, _) => job.multiply::<1, 2>(&pass, panels, sums),
                        (_, 128) => job.multiply::<GROUPS, 1>(&pass, panels, sums),
                        _ => job.multiply::<GROUPS, 2>(&pass, panels, sums),
                    }
                }
            }
        }
    }
    write(out, columns, x.parts, sums, floats);
}

/// 32 weight rows with all activations, or the first sixteen with the one block.
struct Job<'a> {
    x: &'a QuantizedRows,
    packed: [&'a [u8]; ROWS],
    /// `[groups, segments, 16]`, the weight's scales.
    scales: &'a [f32],
    /// Blocks of activations.
    blocks: usize,
}

/// Some columns with some blocks of activations.
struct Pass {
    /// Blocks of 128 columns.
    depth: Range<usize>,
    blocks: Range<usize>,
    /// Whether panels are to be unpacked, or are there already.
    unpack: bool,
}

/// Integer sums of one or two segments of `G` groups with a block.
#[repr(C, align(64))]
struct Dots<const G: usize, const S: usize>([[[i32; SUMS]; G]; S]);

/// Where sums on their way belong.
#[derive(Clone, Copy, Default)]
struct Part {
    block: usize,
    /// Index of the activations' scales.
    x_scales: usize,
    /// First of its segments among those with scales.
    segment: usize,
}

impl Job<'_> {
    /// Adds the products of columns `128 depth ..` with some blocks of activations to the sums
    /// `[groups, blocks]`. `S` segments are multiplied in two steps: one of 128 columns, or two of
    /// at most 64.
    ///
    /// # Safety
    /// Tiles are configured for the segment.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    unsafe fn multiply<const G: usize, const S: usize>(
        &self,
        pass: &Pass,
        panels: &mut [[u8; PANEL]],
        sums: &mut [f32],
    ) {
        let (x, depth) = (self.x, &pass.depth);
        let step = x.segment.min(64);
        let pairs = ACTIVATION_GROUP / (2 * step);
        // rows of the next panel that are unpacked with each block of activations
        let rows = G * LANES;
        let share = rows.div_ceil(pairs * pass.blocks.len());
        let mut dots: [Dots<G, S>; DELAY + 1] = [const { Dots([[[0; SUMS]; G]; S]) }; DELAY + 1];
        let mut parts = [Part::default(); DELAY + 1];
        let mut steps = 0;
        let slots = panels.len();
        if pass.unpack {
            self.unpack(0..rows, depth.start, ahead::<G>(&self.packed, depth, depth.start), &mut panels[0]);
        }
        for d in depth.clone() {
            let slot_of = |d: usize| (d - depth.start) % slots;
            let ahead = ahead::<G>(&self.packed, depth, d + 1);
            let mut unpacked = if pass.unpack && d + 1 < depth.end { 0 } else { rows };
            for pair in 0..pairs {
                let first = 2 * pair * step;
                for (group, column) in [(0, first), (1, first), (0, first + step), (1, first + step)] {
                    if group >= G {
                        continue;
                    }
                    let tile = &panels[slot_of(d)][group * 2 * TILE + column / 64 * TILE + column % 64..];
                    // SAFETY: tiles are configured; the panel has sixteen rows from there on.
                    unsafe {
                        match (group, column == first) {
                            (0, true) => tiles::load::<4>(tile.as_ptr()),
                            (_, true) => tiles::load::<5>(tile.as_ptr()),
                            (0, false) => tiles::load::<6>(tile.as_ptr()),
                            (_, false) => tiles::load::<7>(tile.as_ptr()),
                        }
                    }
                }
                for block in pass.blocks.clone() {
                    let at = d * self.blocks + block;
                    let codes = &x.codes[(at * ACTIVATION_GROUP + first) * LANES..][..2 * step * LANES];
                    let (codes, codes_2) = codes.split_at(step * LANES);
                    let segment = ((d - depth.start) * ACTIVATION_GROUP + first) / x.segment;
                    let slot = steps % (DELAY + 1);
                    parts[slot] = Part { block, x_scales: at * LANES, segment };
                    let oldest = (steps + 1) % (DELAY + 1);
                    for quarter in 0..4 {
                        let to = &raw mut dots[slot].0;
                        // SAFETY: tiles are configured; pointers lead to tiles, or room for sums.
                        unsafe {
                            match quarter {
                                0 => {
                                    tiles::zero::<0>();
                                    if G > 1 {
                                        tiles::zero::<1>();
                                    }
                                    tiles::load::<2>(codes.as_ptr().cast());
                                    tiles::multiply_bytes::<0, 4, 2>();
                                }
                                1 => {
                                    if G > 1 {
                                        tiles::multiply_bytes::<1, 5, 2>();
                                    }
                                    if S == 2 {
                                        tiles::store::<0, _>(&raw mut (*to)[0][0]);
                                        tiles::zero::<0>();
                                        if G > 1 {
                                            tiles::store::<1, _>(&raw mut (*to)[0][G - 1]);
                                            tiles::zero::<1>();
                                        }
                                    }
                                }
                                2 => {
                                    tiles::load::<3>(codes_2.as_ptr().cast());
                                    tiles::multiply_bytes::<0, 6, 3>();
                                }
                                _ => {
                                    if G > 1 {
                                        tiles::multiply_bytes::<1, 7, 3>();
                                    }
                                    tiles::store::<0, _>(&raw mut (*to)[S - 1][0]);
                                    if G > 1 {
                                        tiles::store::<1, _>(&raw mut (*to)[S - 1][G - 1]);
                                    }
                                }
                            }
                        }
                        if steps >= DELAY {
                            self.add_quarter(parts[oldest], quarter, &dots[oldest], sums);
                        }
                    }
                    if unpacked < rows {
                        let next = unpacked..rows.min(unpacked + share);
                        unpacked = next.end;
                        self.unpack(next, d + 1, ahead, &mut panels[slot_of(d + 1)]);
                    }
                    steps += 1;
                }
            }
        }
        for step in steps.saturating_sub(DELAY)..steps {
            let slot = step % (DELAY + 1);
            for quarter in 0..4 {
                self.add_quarter(parts[slot], quarter, &dots[slot], sums);
            }
        }
    }

    /// Block `d` of some rows into the panel.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn unpack(&self, rows: Range<usize>, d: usize, ahead: usize, panel: &mut [u8; PANEL]) {
        for r in rows {
            let mut padded = [0; BLOCK];
            let packed = block_ahead(self.packed[r], d, ahead, &mut padded);
            for half in 0..2 {
                let codes = _mm512_sub_epi8(unpack_64(packed, half), _mm512_set1_epi8(32));
                let line = &mut panel[r / LANES * 2 * TILE + half * TILE + r % LANES * 64..][..64];
                // SAFETY: 64 bytes were just checked.
                unsafe { _mm512_storeu_si512(line.as_mut_ptr().cast(), codes) };
            }
        }
    }

    /// Scales the integer sums of a quarter of the weight rows and adds them to the others.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add_quarter<const G: usize, const S: usize>(
        &self,
        part: Part,
        quarter: usize,
        dots: &Dots<G, S>,
        sums: &mut [f32],
    ) {
        let rows = G * LANES / 4;
        let (group, first) = (quarter * rows / LANES, quarter * rows % LANES);
        let x_scales = &self.x.scales[part.x_scales..][..LANES];
        // SAFETY: sixteen floats were just checked.
        let x_scales = unsafe { _mm512_loadu_ps(x_scales.as_ptr()) };
        let mut w_scales: [&[f32]; S] = [&[]; S];
        for (s, w_scales) in w_scales.iter_mut().enumerate() {
            let at = group * (self.scales.len() / G) + (part.segment + s) * LANES + first;
            *w_scales = &self.scales[at..][..rows];
        }
        let sums = &mut sums[(group * self.blocks + part.block) * SUMS + first * LANES..][..rows * LANES];
        for (r, sums) in sums.chunks_exact_mut(LANES).enumerate() {
            // SAFETY: a chunk has sixteen floats.
            let mut y = unsafe { _mm512_loadu_ps(sums.as_ptr()) };
            for (dots, w_scales) in dots.0.iter().zip(w_scales) {
                let dots = &dots[group][(first + r) * LANES..][..LANES];
                // SAFETY: sixteen integers were just checked.
                let dot = unsafe { _mm512_loadu_si512(dots.as_ptr().cast()) };
                let scale = _mm512_mul_ps(x_scales, _mm512_set1_ps(w_scales[r]));
                y = _mm512_add_ps(y, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(dot)));
            }
            // SAFETY: a chunk has sixteen floats.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), y) };
        }
    }
}
