//! Products of activations that are sums of bf16 numbers: codes have fewer than 8 bits, so every
//! product is exact, and sums of a segment are scaled as [`product`](super::product)'s are.
//!
//! There are no four tiles that hold all columns of a panel here; weights are loaded from L1 for
//! every block of activations.

use std::arch::x86_64::*;
use std::array::from_fn;
use std::ops::Range;

use super::super::avx2::Rows;
use super::super::avx512::{BLOCK, SUMS, block_ahead, write};
use super::panel::{DELAY, GROUPS, ROWS, TILE, TOGETHER, ahead};
use super::tiles::{self, Configured};
use crate::arch::{ACTIVATION_GROUP, LANES, Scratch, Stripe, Weights};

/// Columns of a tile.
const WIDTH: usize = 32;
/// Bytes of a panel, `[groups, 4 times 32 columns, 16, 32]` codes as bf16.
const PANEL: usize = ROWS * ACTIVATION_GROUP * 2;
/// Bytes of activations that stay in L2 while all weight rows of a stripe pass.
const RESIDENT: usize = 768 << 10;

/// # Safety
/// The processor has AVX-512 and tiles, which the process may use.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,fma,f16c")]
pub(super) unsafe fn multiply(w: &Weights<'_>, x: &[u32], out: &mut Stripe<'_>, scratch: &mut Scratch) {
    let Scratch { panel, sums, scales, floats, .. } = scratch;
    let columns = out.columns();
    let blocks = out.rows().div_ceil(LANES);
    let depths = w.columns.div_ceil(ACTIVATION_GROUP);
    let resident = (RESIDENT / (x.len() / depths * 4)).clamp(1, depths);
    let segment = w.segment_width();
    let segments = ACTIVATION_GROUP / segment;
    panel.resize(PANEL * if blocks > TOGETHER { resident } else { 2 });
    let panels = panel.as_chunks_mut().0;
    sums.resize(columns.len().div_ceil(ROWS) * GROUPS * blocks * SUMS);
    sums.fill(0.0);
    // SAFETY: the caller's.
    let _configured = unsafe { Configured::new(2 * segment.min(WIDTH) as u16) };
    for first in (0..depths).step_by(resident) {
        let depth = first..depths.min(first + resident);
        let scales_of_group = depth.len() * segments * LANES;
        scales.resize(GROUPS * scales_of_group);
        for (n, sums) in columns.clone().step_by(ROWS).zip(sums.chunks_exact_mut(GROUPS * blocks * SUMS)) {
            for (g, scales) in scales.chunks_exact_mut(scales_of_group).enumerate() {
                let rows = Rows { n: n + g * LANES, end: columns.end };
                rows.scales_of_16(w, first * segments, segment, scales);
            }
            let rows = Rows { n, end: columns.end };
            let packed = from_fn(|r| w.packed_row(rows.row(r)));
            let pairs = x.len() / (depths * blocks);
            let job = Job { x, pairs, segment, packed, scales, blocks };
            for first in (0..blocks).step_by(TOGETHER) {
                let together = first..blocks.min(first + TOGETHER);
                // SAFETY: tiles are configured for the segment.
                unsafe { job.multiply(&depth, &together, panels, sums) };
            }
        }
    }
    write(out, columns, 1, sums, floats);
}

/// 32 weight rows with all activations.
struct Job<'a> {
    /// `[depths, blocks, terms, 64, 16]`
    x: &'a [u32],
    /// Pairs of a block of activations.
    pairs: usize,
    /// Columns that share scales.
    segment: usize,
    packed: [&'a [u8]; ROWS],
    /// `[groups, segments, 16]`, the weight's scales.
    scales: &'a [f32],
    /// Blocks of activations.
    blocks: usize,
}

/// Sums of a segment of two groups with a block.
#[repr(C, align(64))]
struct Dots([[f32; SUMS]; GROUPS]);

/// Where sums on their way belong.
#[derive(Clone, Copy, Default)]
struct Part {
    block: usize,
    /// Among those with scales.
    segment: usize,
}

impl Job<'_> {
    /// Adds the products of columns `128 depth ..` with some blocks of activations to the sums
    /// `[groups, blocks]`. The first blocks' pass unpacks the panels.
    ///
    /// # Safety
    /// Tiles are configured for the segment.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    unsafe fn multiply(
        &self,
        depth: &Range<usize>,
        together: &Range<usize>,
        panels: &mut [[u8; PANEL]],
        sums: &mut [f32],
    ) {
        let step = self.segment.min(WIDTH);
        let (segments, steps) = (ACTIVATION_GROUP / self.segment, self.segment / step);
        let unpack = together.start == 0;
        // rows of the next panel that are unpacked with each block of activations
        let share = ROWS.div_ceil(segments * together.len());
        let mut dots = [const { Dots([[0.0; SUMS]; GROUPS]) }; DELAY + 1];
        let mut parts = [Part::default(); DELAY + 1];
        let mut done = 0;
        let slots = panels.len();
        if unpack {
            self.unpack(
                0..ROWS,
                depth.start,
                ahead::<GROUPS>(&self.packed, depth, depth.start),
                &mut panels[0],
            );
        }
        for d in depth.clone() {
            let slot_of = |d: usize| (d - depth.start) % slots;
            let ahead = ahead::<GROUPS>(&self.packed, depth, d + 1);
            let mut unpacked = if unpack && d + 1 < depth.end { 0 } else { ROWS };
            for segment in 0..segments {
                for block in together.clone() {
                    let x = &self.x[(d * self.blocks + block) * self.pairs..][..self.pairs];
                    let slot = done % (DELAY + 1);
                    let oldest = (done + 1) % (DELAY + 1);
                    parts[slot] = Part { block, segment: (d - depth.start) * segments + segment };
                    // SAFETY: tiles are configured.
                    unsafe {
                        tiles::zero::<0>();
                        tiles::zero::<1>();
                    }
                    for i in 0..steps {
                        let column = segment * self.segment + i * step;
                        let w = &panels[slot_of(d)][column / WIDTH * TILE + column % WIDTH * 2..];
                        // SAFETY: tiles are configured; the panel has sixteen rows of both groups
                        // from there on.
                        unsafe {
                            tiles::load::<4>(w.as_ptr());
                            tiles::load::<5>(w[PANEL / GROUPS..].as_ptr());
                        }
                        for term in x.chunks_exact(ACTIVATION_GROUP / 2 * LANES) {
                            let x = &term[column / 2 * LANES..][..step / 2 * LANES];
                            // SAFETY: tiles are configured; there are so many pairs.
                            unsafe {
                                tiles::load::<2>(x.as_ptr().cast());
                                tiles::multiply_halves::<0, 4, 2>();
                                tiles::multiply_halves::<1, 5, 2>();
                            }
                        }
                        if done >= DELAY {
                            for quarter in i * 4 / steps..(i + 1) * 4 / steps {
                                self.add_quarter(parts[oldest], quarter, &dots[oldest], sums);
                            }
                        }
                    }
                    // SAFETY: tiles are configured; each of the arrays has 256 numbers.
                    unsafe {
                        tiles::store::<0, _>(&raw mut dots[slot].0[0]);
                        tiles::store::<1, _>(&raw mut dots[slot].0[1]);
                    }
                    if unpacked < ROWS {
                        let rows = unpacked..ROWS.min(unpacked + share);
                        unpacked = rows.end;
                        self.unpack(rows, d + 1, ahead, &mut panels[slot_of(d + 1)]);
                    }
                    done += 1;
                }
            }
        }
        for part in done.saturating_sub(DELAY)..done {
            let slot = part % (DELAY + 1);
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
            for quarter in 0..4 {
                let at = r / LANES * (PANEL / GROUPS) + quarter * TILE + r % LANES * 64;
                let line = &mut panel[at..][..64];
                // SAFETY: 64 bytes were just checked.
                unsafe { _mm512_storeu_si512(line.as_mut_ptr().cast(), unpack_32(packed, quarter)) };
            }
        }
    }

    /// Scales the sums of eight weight rows and adds them to the others.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add_quarter(&self, part: Part, quarter: usize, dots: &Dots, sums: &mut [f32]) {
        const ROWS: usize = LANES / 2;
        let (group, first) = (quarter / 2, quarter % 2 * ROWS);
        let scales =
            &self.scales[group * (self.scales.len() / GROUPS) + part.segment * LANES + first..][..ROWS];
        let dots = &dots.0[group][first * LANES..][..ROWS * LANES];
        let sums = &mut sums[(group * self.blocks + part.block) * SUMS + first * LANES..][..ROWS * LANES];
        for ((sums, dots), &scale) in sums.chunks_exact_mut(LANES).zip(dots.chunks_exact(LANES)).zip(scales) {
            // SAFETY: both chunks have sixteen floats.
            unsafe {
                let y = _mm512_loadu_ps(sums.as_ptr());
                let y = _mm512_fmadd_ps(_mm512_loadu_ps(dots.as_ptr()), _mm512_set1_ps(scale), y);
                _mm512_storeu_ps(sums.as_mut_ptr(), y);
            }
        }
    }
}

/// Codes `32 quarter ..` of a block of 128 as bf16, in order.
///
/// # How
/// Every word gets the two bytes that hold its code; shifted down, its lowest six bits choose
/// one of 64 numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn unpack_32(block: &[u8; BLOCK], quarter: usize) -> __m512i {
    const START: [usize; 4] = [0, 24, 32, 32];
    const PLACES: [[u8; 64]; 4] = [places(0), places(0), places(16), places(40)];
    const SHIFTS: [u16; 32] = {
        let mut shifts = [0; 32];
        let mut i = 0;
        while i < 32 {
            shifts[i] = [0, 6, 4, 2][i % 4];
            i += 1;
        }
        shifts
    };
    const NUMBERS: [u16; 64] = {
        let mut numbers = [0; 64];
        let mut i = 0;
        while i < 64 {
            numbers[i] = ((i as f32 - 32.0).to_bits() >> 16) as u16;
            i += 1;
        }
        numbers
    };
    // SAFETY: the 64 bytes from the start of a quarter lie in the block; tables have 64 bytes each.
    unsafe {
        let packed = _mm512_loadu_si512(block.as_ptr().add(START[quarter]).cast());
        let places = _mm512_loadu_si512(PLACES[quarter].as_ptr().cast());
        let shifts = _mm512_loadu_si512(SHIFTS.as_ptr().cast());
        let index = _mm512_srlv_epi16(_mm512_permutexvar_epi8(places, packed), shifts);
        let low = _mm512_loadu_si512(NUMBERS.as_ptr().cast());
        let high = _mm512_loadu_si512(NUMBERS[32..].as_ptr().cast());
        _mm512_permutex2var_epi16(low, index, high)
    }
}

/// The two bytes that hold each of 32 codes, which begin at a byte.
const fn places(start: u8) -> [u8; 64] {
    let mut places = [0; 64];
    let mut i = 0;
    while i < 32 {
        let first = start + i as u8 / 4 * 3 + [0, 0, 1, 2][i % 4];
        places[2 * i] = first;
        // the last code of four lies in one byte
        places[2 * i + 1] = if i % 4 == 3 { first } else { first + 1 };
        i += 1;
    }
    places
}
