//! Launches of the small-M kernels.

use super::{Activations, Problem};
use crate::order::TILE_COLUMNS;

/// How sums of several splits of K are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// Through shared memory of a cluster (Hopper).
    Cluster,
    /// Through the workspace, by the block that arrives last.
    Workspace,
}

/// Warps of a block, on Hopper and before: `kWarps` in kernels/include/flexq/small/args.cuh.
const fn warps(hopper: bool) -> u64 {
    if hopper { 12 } else { 8 }
}

/// Depth of a warp's ring where it can be chosen. Three for all warps of a multiprocessor are 55 KB,
/// what memory brings in 2 us; more would stand in the way of activations, of 16 bits above all.
const STAGES: u64 = 3;
const INT8_STAGES: u64 = 4;
/// Shared memory that kernels keep for a flag, at most, and what the driver keeps for a block.
const STATIC_BYTES: u64 = 16;
const RESERVED_BYTES: u64 = 1024;

/// Depth of a warp's ring where it is fixed: before Hopper.
const FIXED_STAGES: u64 = 5;

/// What can be chosen of a launch; the rest follows from the problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmallOptions {
    /// Multiply bit planes rather than integers.
    pub planes: bool,
    /// Quantize activations while they are staged rather than by a launch before this one.
    pub fused: bool,
    /// Parts of K.
    pub splits: u64,
    /// How the parts are added.
    pub reduce: Reduce,
    /// Most depth of a warp's ring.
    pub stages: u64,
    /// Blocks of a launch for each multiprocessor.
    pub blocks: u64,
    /// Blocks a multiprocessor has shared memory for. Where that is more than a launch
    /// needs, the next product fetches its first weights while this one finishes.
    pub room: u64,
}

/// A launch of a small-M kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Small {
    /// What was chosen.
    pub options: SmallOptions,
    /// Rows the kernel is made for: 8, 16 or 32.
    pub rows: u32,
    /// Strips of 16 weight rows a block works on, at most.
    pub strips: u32,
    /// Groups of blocks that work on as many; the others, after them, on one less.
    pub longer: u32,
    /// Parts of K.
    pub splits: u32,
    /// Blocks of 128 columns in a part.
    pub split_blocks: u32,
    /// Depth of a warp's ring.
    pub stages: u32,
    /// Warps of a block.
    pub warps: u32,
    /// Blocks of threads.
    pub grid: u32,
    /// Dynamic shared memory.
    pub shared_bytes: u32,
}

impl Small {
    /// The launch with these options, if it fits.
    #[must_use]
    pub fn with(p: &Problem, options: &SmallOptions) -> Option<Self> {
        let rows = match p.m {
            1..=8 => 8,
            9..=16 => 16,
            17..=32 => 32,
            _ => return None,
        };
        let int8 = p.activations.is_int8();
        if options.planes && (p.segment != 128 || rows != 8 || !int8) || options.fused && !int8 {
            return None;
        }
        let (m, k_blocks) = (p.m as u64, p.k_blocks());
        if options.splits == 0 || options.splits > k_blocks {
            return None;
        }
        let split_blocks = k_blocks.div_ceil(options.splits);
        let splits = k_blocks.div_ceil(split_blocks);
        let hopper = p.arch.capability >= (9, 0);
        if splits > 1 && options.reduce == Reduce::Cluster && (!hopper || splits > 8) {
            return None;
        }
        let groups =
            (u64::from(p.arch.multiprocessors) * options.blocks / splits).clamp(1, p.strips().max(1));
        let strips = p.strips().div_ceil(groups);

        let stage_bytes = 1536 + 32 * 128 / p.segment as u64 + if hopper { 8 } else { 0 };
        let x = m * (split_blocks * TILE_COLUMNS as u64 * p.activations.bytes() + 16);
        let x_scales = if int8 { (split_blocks * m).next_multiple_of(4) * 4 } else { 0 };
        let warps = warps(hopper);
        let slots = (strips + warps) * m * 80;
        let fixed = x + x_scales + slots;
        let reserved = STATIC_BYTES + if options.room > 1 { RESERVED_BYTES } else { 0 };
        let most = u64::from(p.arch.shared_bytes) / options.room.max(1) - reserved;
        let depth = most.saturating_sub(fixed) / (warps * stage_bytes);
        let stages = if hopper {
            (strips * split_blocks).div_ceil(warps).min(options.stages).min(depth).max(1)
        } else {
            FIXED_STAGES
        };
        let ring = warps * stages * stage_bytes;
        // Launches that lie beside each other take the same share: with less, a third might find
        // room, and then there are two on one multiprocessor and none on another. One that shall
        // lie alone takes more than half.
        let shared = match options.room {
            _ if !hopper => ring + fixed,
            0 | 1 => (ring + fixed).max(u64::from(p.arch.shared_bytes) / 2),
            _ => most,
        };
        let sums = strips * m.div_ceil(8) * 512;
        let in_cluster = splits > 1 && options.reduce == Reduce::Cluster;
        if depth < stages || in_cluster && sums > ring {
            return None;
        }
        Some(Self {
            options: *options,
            rows,
            strips: strips as u32,
            longer: (p.strips() - (strips - 1) * groups) as u32,
            splits: splits as u32,
            split_blocks: split_blocks as u32,
            stages: stages as u32,
            warps: warps as u32,
            grid: (groups * splits) as u32,
            shared_bytes: shared as u32,
        })
    }

    /// Blocks of a cluster; 1 for none.
    #[must_use]
    pub fn cluster(&self) -> u32 {
        if self.options.reduce == Reduce::Cluster { self.splits } else { 1 }
    }

    /// Sums go through the workspace.
    pub(super) fn has_partial(&self) -> bool {
        self.splits > 1 && self.options.reduce == Reduce::Workspace
    }

    /// Whether the ring is as deep as wanted, or holds all there is.
    fn is_deep(&self) -> bool {
        let units = (self.strips * self.split_blocks).div_ceil(self.warps);
        self.stages >= units.min(self.options.stages as u32)
    }

    /// Nanoseconds that order launches for one product: what streaming its weights takes, and what
    /// activations and partial sums add to it. Fitted to runs of `benches/gpu` on an H200.
    fn time(&self, p: &Problem) -> u64 {
        let (m, strips, splits) = (p.m as u64, u64::from(self.strips), u64::from(self.splits));
        let at_work = u64::from(self.grid.min(p.arch.multiprocessors));
        let weights = 55 * p.strips() * p.k_blocks() / at_work;
        let staged = m * u64::from(self.split_blocks);
        let activations = match p.activations {
            // the largest number of a row is found in all of it
            Activations::Int8 { per_row: true } if self.options.fused => {
                23 * staged + 900 + 5 * m * p.k_blocks()
            }
            Activations::Int8 { .. } if self.options.fused => 23 * staged,
            // a launch more, beside which no second block fits
            Activations::Int8 { .. } => 4000 + 7 * staged,
            _ => 7 * staged,
        };
        let sums = match self.options.reduce {
            _ if splits == 1 => 0,
            Reduce::Cluster => 800 + (20 * m.div_ceil(8) + 8 * m) * strips,
            Reduce::Workspace => 290 * splits + (75 * m.div_ceil(8) + 5 * m) * strips,
        };
        let shallow = if self.stages > 1 || self.is_deep() { 0 } else { 1400 };
        weights + activations + sums + shallow
    }

    /// The launch with these parts, beside which the next one finds room if rings can still be deep.
    fn with_parts(p: &Problem, planes: bool, splits: u64, blocks: u64, fused: bool) -> Option<Self> {
        let hopper = p.arch.capability >= (9, 0);
        // More blocks than two do not fill the multiprocessors as clusters.
        let reduce = if hopper && splits == 2 { Reduce::Cluster } else { Reduce::Workspace };
        let stages = if p.activations.is_int8() { INT8_STAGES } else { STAGES };
        let with_room =
            |room| Self::with(p, &SmallOptions { planes, fused, splits, reduce, stages, blocks, room });
        // A launch that quantizes would take the place of a block beside this one.
        let shares = hopper && (fused || !p.activations.is_int8());
        let beside = if shares { with_room(2) } else { None };
        beside.filter(Self::is_deep).or_else(|| with_room(1)).or(beside)
    }

    /// The launch thought fastest, and its time: activations are staged by every block, so parts of K
    /// pay where there are many of them; quantizing them there saves a launch.
    pub(super) fn choose(p: &Problem, planes: bool) -> Option<Self> {
        // Sums of many strips can take more memory than there is.
        let rounds = (p.strips() / (u64::from(p.arch.multiprocessors) * 16)).max(1);
        let fused: &[bool] = if p.activations.is_int8() { &[true, false] } else { &[false] };
        let best = |splits: &[u64]| {
            let ways = splits.iter().flat_map(|&splits| [(splits, 1), (splits, rounds)]);
            ways.flat_map(|way| fused.iter().map(move |&fused| (way, fused)))
                .filter_map(|((splits, blocks), fused)| Self::with_parts(p, planes, splits, blocks, fused))
                .min_by_key(|launch| launch.time(p))
        };
        // More parts leave multiprocessors idle, into which later launches would move.
        if p.strips() < 32 { best(&[1, 2, 4, 8, 16]) } else { best(&[1, 2, 4]).or_else(|| best(&[8, 16])) }
    }
}
