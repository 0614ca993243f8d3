//! Launches of the small-M kernels.

use super::Problem;
use crate::order::TILE_COLUMNS;

/// How sums of several splits of K are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// Through shared memory of a cluster (Hopper).
    Cluster,
    /// Through the workspace, by the block that arrives last.
    Workspace,
}

/// Warps of a block.
pub(crate) const WARPS: u64 = 8;
/// Shared memory that kernels keep for a flag, at most, and what the driver keeps for a block.
const STATIC_BYTES: u64 = 16;
const RESERVED_BYTES: u64 = 1024;

/// Depth of a warp's ring where it is fixed: before Hopper.
const FIXED_STAGES: u64 = 5;

/// Numbers of x that are quantized on the way, at most: beyond that a launch of its own is faster.
const MOST_FUSED: usize = 16_384;
/// The same for a block that keeps all of K.
const MOST_FUSED_WHOLE: usize = 8192;
/// Bytes of weights up to which shallow rings do for 16-bit x: deeper ones, which would hold all
/// of it, fill while the previous launch needs the memory.
const LIGHT_WEIGHT: u64 = 24_000_000;
/// Bytes of weights from which two blocks a multiprocessor, which start and end apart from
/// each other, beat one beside the next launch; for one row of x.
const LARGE_WEIGHT: u64 = 100_000_000;

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
    /// Parts of K.
    pub splits: u32,
    /// Blocks of 128 columns in a part.
    pub split_blocks: u32,
    /// Depth of a warp's ring.
    pub stages: u32,
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
        let slots = (strips + WARPS) * m * 80;
        let fixed = x + x_scales + slots;
        let reserved = STATIC_BYTES + if options.room > 1 { RESERVED_BYTES } else { 0 };
        let most = u64::from(p.arch.shared_bytes) / options.room.max(1) - reserved;
        let depth = most.saturating_sub(fixed) / (WARPS * stage_bytes);
        let stages = if hopper {
            (strips * split_blocks).div_ceil(WARPS).min(options.stages).min(depth).max(1)
        } else {
            FIXED_STAGES
        };
        let ring = WARPS * stages * stage_bytes;
        let sums = strips * m.div_ceil(8) * 512;
        let in_cluster = splits > 1 && options.reduce == Reduce::Cluster;
        if depth < stages || in_cluster && sums > ring {
            return None;
        }
        Some(Self {
            options: *options,
            rows,
            strips: strips as u32,
            splits: splits as u32,
            split_blocks: split_blocks as u32,
            stages: stages as u32,
            grid: (groups * splits) as u32,
            shared_bytes: (ring + fixed) as u32,
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

    /// Whether memory is kept busy: a ring of less than three stages is not deep enough.
    fn is_deep(&self) -> bool {
        let units = u64::from(self.strips * self.split_blocks).div_ceil(WARPS);
        u64::from(self.stages) >= units.min(3)
    }

    /// The first of these that fits with rings deep enough, or else the first that fits.
    fn first(p: &Problem, candidates: &[SmallOptions]) -> Option<Self> {
        let fitting = || candidates.iter().filter_map(|options| Self::with(p, options));
        fitting().find(Self::is_deep).or_else(|| fitting().next())
    }

    /// Parts of K follow from memory: a block keeps its part of the activations, and room for the
    /// next launch beside this one is worth more than whole columns. Few strips of weights are
    /// cut along K so that all multiprocessors work. What is measured is in `benches/record/`.
    pub(super) fn choose(p: &Problem, planes: bool) -> Option<Self> {
        let int8 = p.activations.is_int8();
        let cells = p.m * p.k;
        let fused = int8 && cells <= MOST_FUSED;
        let hopper = p.arch.capability >= (9, 0);
        let processors = u64::from(p.arch.multiprocessors);
        // Sums of many strips would take the memory of the rings.
        let blocks = (p.strips() / (processors * 16)).max(1);
        let options = |splits: u64, room| SmallOptions {
            planes,
            fused,
            splits,
            reduce: if hopper && splits == 2 { Reduce::Cluster } else { Reduce::Workspace },
            stages: if !int8 && p.weight_bytes() < LIGHT_WEIGHT { 4 } else { 64 },
            blocks,
            room,
        };
        let filling = (processors / p.strips().max(1)).clamp(1, 8.min(p.k_blocks()).max(1));
        let least = if fused && cells > MOST_FUSED_WHOLE { filling.max(2) } else { filling };
        let least = 1 << least.ilog2();
        // A launch that quantizes would take the place of a block beside this launch.
        let shares = hopper && (fused || !int8);
        let mut candidates = Vec::with_capacity(8);
        if shares {
            if p.m == 1 && p.weight_bytes() > LARGE_WEIGHT {
                candidates.push(SmallOptions { blocks: blocks.max(2), ..options(least, 2) });
            }
            candidates.extend([options(least, 2), options(2 * least, 2)]);
        }
        candidates.extend([options(least, 1)]);
        if shares {
            candidates.push(options(4 * least, 2));
        }
        candidates.extend([2, 4, 8, 16].map(|splits| options(splits * least, 1)));
        Self::first(p, &candidates)
    }
}
