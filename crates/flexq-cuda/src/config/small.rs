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
pub(super) const fn warps(hopper: bool) -> u64 {
    if hopper { 12 } else { 8 }
}

/// Depth of a warp's ring where it can be chosen. Three for all warps of a multiprocessor are 55 KB,
/// what memory brings in 2 us; more would stand in the way of activations, of 16 bits above all.
const STAGES: u64 = 3;
const INT8_STAGES: u64 = 4;
/// Shared memory that kernels keep for a flag, at most, and what the driver keeps for a block.
const STATIC_BYTES: u64 = 16;
const RESERVED_BYTES: u64 = 1024;

/// Shared memory for a block of which a multiprocessor has room for so many.
pub(super) fn share(p: &Problem, room: u64) -> u64 {
    let reserved = STATIC_BYTES + if room > 1 { RESERVED_BYTES } else { 0 };
    u64::from(p.arch.shared_bytes) / room.max(1) - reserved
}

/// Depth of a warp's ring where it is fixed: before Hopper.
const FIXED_STAGES: u64 = 5;

/// Kernels of few rows, each with a file of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Activations are staged before the first product.
    Staged,
    /// They are loaded while weights come.
    Streamed,
    /// Teams of warps share them.
    Teams,
    /// They are staged, and multiplied as bit planes.
    Planes,
}

impl Family {
    /// As requests name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Staged => "small",
            Self::Streamed => "streamed",
            Self::Teams => "teams",
            Self::Planes => "planes",
        }
    }
}

/// What can be chosen of a launch; the rest follows from the problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmallOptions {
    /// Whose launch this is.
    pub family: Family,
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
    /// Stages of activations of all teams of a block; 0 where there are none.
    pub x_stages: u32,
    /// Warps of a block.
    pub warps: u32,
    /// Blocks of threads.
    pub grid: u32,
    /// Dynamic shared memory.
    pub shared_bytes: u32,
}

/// How weights are cut among blocks.
pub(super) struct Cut {
    /// Groups of strips.
    pub groups: u64,
    /// Strips of a group, at most.
    pub strips: u64,
    /// Parts of K.
    pub splits: u64,
    /// Blocks of 128 columns in a part.
    pub split_blocks: u64,
}

impl Cut {
    /// For as many blocks as there are places; K in `splits` parts, or in less if those are as long.
    pub fn new(p: &Problem, places: u64, splits: u64) -> Self {
        let split_blocks = p.k_blocks().div_ceil(splits);
        let splits = p.k_blocks().div_ceil(split_blocks);
        let groups = (places / splits).clamp(1, p.strips().max(1));
        Self { groups, strips: p.strips().div_ceil(groups), splits, split_blocks }
    }

    /// Whether `warps` warps can count their units, strips of a block of 128 columns, as kernels do: up to 2^21.
    pub fn is_countable(&self, warps: u64) -> bool {
        self.strips * self.split_blocks * warps < 1 << 21
    }

    /// A launch of blocks of `warps` warps and `shared` bytes, without rings.
    pub fn launch(&self, p: &Problem, options: SmallOptions, rows: u32, warps: u64, shared: u64) -> Small {
        Small {
            options,
            rows,
            strips: self.strips as u32,
            longer: (p.strips() - (self.strips - 1) * self.groups) as u32,
            splits: self.splits as u32,
            split_blocks: self.split_blocks as u32,
            stages: 0,
            x_stages: 0,
            warps: warps as u32,
            grid: (self.groups * self.splits) as u32,
            shared_bytes: shared as u32,
        }
    }
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
        let possible = match options.family {
            Family::Staged => true,
            Family::Planes => p.segment == 128 && rows == 8 && int8,
            Family::Streamed | Family::Teams => false, // see `streamed_with` and `teams_with`
        };
        if p.is_empty() || !possible || options.fused && !int8 {
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
        let in_cluster = splits > 1 && options.reduce == Reduce::Cluster;
        let places = u64::from(p.arch.multiprocessors) * options.blocks;
        // The multiprocessors of a part of the GPU seldom come in fours: 30 clusters run on 132.
        let places = if in_cluster && splits > 2 { places * 10 / 11 } else { places };
        let cut = Cut::new(p, places, splits);
        let strips = cut.strips;

        let stage_bytes = 1536 + 32 * 128 / p.segment as u64 + if hopper { 8 } else { 0 };
        let x = m * (split_blocks * TILE_COLUMNS as u64 * p.activations.bytes() + 16);
        let x_scales = if int8 { (split_blocks * m).next_multiple_of(4) * 4 } else { 0 };
        let warps = warps(hopper);
        let slots = (strips + warps) * m * 80;
        // sums for this block, which all of its cluster write
        let sums = if in_cluster { (strips * m.div_ceil(8)).next_multiple_of(splits) * 512 } else { 0 };
        let fixed = x + x_scales + slots + sums;
        let most = share(p, options.room);
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
        if depth < stages || !cut.is_countable(warps) {
            return None;
        }
        Some(Self { stages: stages as u32, ..cut.launch(p, *options, rows, warps, shared) })
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
    /// activations and partial sums add to it. Fitted to runs of `benches/gpu` on an H100.
    fn time(&self, p: &Problem) -> u64 {
        let (m, strips, splits) = (p.m as u64, u64::from(self.strips), u64::from(self.splits));
        let octets = m.div_ceil(8);
        // Nine tenths of the multiprocessors read as fast as all.
        let all = u64::from(p.arch.multiprocessors);
        let at_work = if u64::from(self.grid) * 10 >= all * 9 { all } else { u64::from(self.grid) };
        let weights = 62 * p.strips() * p.k_blocks() / at_work;
        let staged = m * u64::from(self.split_blocks);
        let crowded = self.cluster() > 2;
        let activations = match p.activations {
            // the largest number of a row is found in all of it
            Activations::Int8 { per_row: true } if self.options.fused => {
                22 * staged + 330 + 3 * m * p.k_blocks()
            }
            Activations::Int8 { .. } if self.options.fused => 22 * staged,
            // a launch more, beside which no second block fits
            Activations::Int8 { .. } => 3000 + 5 * staged,
            // rings of the next launch are not filled beside one that lies alone
            _ => 4 * staged + staged / 2 + if self.options.room > 1 || crowded { 0 } else { 500 },
        };
        let sums = match self.options.reduce {
            _ if splits == 1 => 0,
            Reduce::Cluster => 130 + 340 * splits + 44 * octets * strips,
            Reduce::Workspace => 265 * splits + (38 * octets + 11 * m) * strips,
        };
        let shallow = if self.stages > 1 || self.is_deep() { 0 } else { 1200 };
        weights + activations + sums + shallow
    }

    /// The launch of these parts, beside which the next one finds room if rings can still be deep.
    fn with_parts(p: &Problem, family: Family, parts: &Parts) -> Option<Self> {
        let &Parts { splits, reduce, blocks, fused } = parts;
        let hopper = p.arch.capability >= (9, 0);
        let stages = if p.activations.is_int8() { INT8_STAGES } else { STAGES };
        let with_room = |room| {
            let options = SmallOptions { family, fused, splits, reduce, stages, blocks, room };
            Self::with(p, &options)
        };
        // A launch that quantizes would take the place of a block beside this one, and a cluster of four
        // could get two places of one multiprocessor.
        let crowded = splits > 2 && reduce == Reduce::Cluster;
        let shares = hopper && !crowded && (fused || !p.activations.is_int8());
        let beside = if shares { with_room(2) } else { None };
        beside.filter(Self::is_deep).or_else(|| with_room(1)).or(beside)
    }

    /// The launch thought fastest: activations are staged by every block, so parts of K pay where
    /// there are many of them; quantizing them there saves a launch.
    pub(super) fn choose(p: &Problem, family: Family) -> Option<Self> {
        // Sums of many strips can take more memory than there is.
        let rounds = (p.strips() / (u64::from(p.arch.multiprocessors) * 16)).max(1);
        let hopper = p.arch.capability >= (9, 0);
        let mut ways = Vec::new();
        for splits in [1, 2, 4, 8, 16] {
            for reduce in [Reduce::Cluster, Reduce::Workspace] {
                let useful = match reduce {
                    Reduce::Cluster => hopper && matches!(splits, 2 | 4),
                    Reduce::Workspace => !(hopper && splits == 2),
                };
                for blocks in [1, rounds] {
                    for fused in [true, false] {
                        if useful && (p.activations.is_int8() || !fused) {
                            ways.push(Parts { splits, reduce, blocks, fused });
                        }
                    }
                }
            }
        }
        let best = |most: u64, ways: &[Parts]| {
            ways.iter()
                .filter(|way| way.splits <= most)
                .filter_map(|way| Self::with_parts(p, family, way))
                .min_by_key(|launch| launch.time(p))
        };
        // More parts leave multiprocessors idle, into which later launches would move.
        let few = if p.strips() < 32 { None } else { best(4, &ways) };
        few.or_else(|| best(16, &ways))
    }
}

/// How a product is cut, of a launch to be tried.
struct Parts {
    splits: u64,
    reduce: Reduce,
    blocks: u64,
    fused: bool,
}
