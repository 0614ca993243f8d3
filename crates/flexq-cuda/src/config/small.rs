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

/// Shared memory that kernels keep for a flag, at most.
const STATIC_BYTES: u64 = 16;

/// A launch of a small-M kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Small {
    /// Multiply bit planes rather than integers.
    pub planes: bool,
    /// Rows the kernel is made for: 8, 16 or 32.
    pub rows: u32,
    /// Strips of 16 weight rows a block works on.
    pub strips: u32,
    /// Parts of K.
    pub splits: u32,
    /// Blocks of 128 columns in a part.
    pub split_blocks: u32,
    /// How the parts are added.
    pub reduce: Reduce,
    /// Blocks of threads.
    pub grid: u32,
    /// Dynamic shared memory.
    pub shared_bytes: u32,
}

impl Small {
    /// Warps of a block; the kernels are instantiated with the same.
    pub(crate) fn warps(rows: u32) -> u64 {
        if rows == 8 { 16 } else { 8 }
    }

    fn stages(rows: u32) -> u64 {
        if rows == 8 { 3 } else { 4 }
    }

    /// The launch with `splits` parts of K, if it fits.
    #[must_use]
    pub fn with_splits(p: &Problem, planes: bool, splits: u64, reduce: Reduce) -> Option<Self> {
        let rows = match p.m {
            1..=8 => 8,
            9..=16 => 16,
            17..=32 => 32,
            _ => return None,
        };
        if planes && (p.segment != 128 || rows != 8 || !p.activations.is_int8()) {
            return None;
        }
        let (m, k_blocks) = (p.m as u64, p.k_blocks());
        if splits == 0 || splits > k_blocks {
            return None;
        }
        let split_blocks = k_blocks.div_ceil(splits);
        let splits = k_blocks.div_ceil(split_blocks);
        let groups = (u64::from(p.arch.multiprocessors) / splits).max(1);
        let strips = p.strips().div_ceil(groups);
        let groups = p.strips().div_ceil(strips);
        let ring = Self::warps(rows) * Self::stages(rows) * (1536 + 32 * 128 / p.segment as u64);
        let x = m * (split_blocks * TILE_COLUMNS as u64 * p.activations.bytes() + 16);
        let x_scales = if p.activations.is_int8() { (split_blocks * m).next_multiple_of(4) * 4 } else { 0 };
        let slots = (strips + Self::warps(rows)) * m * 80;
        let sums = strips * m.div_ceil(8) * 512;
        if reduce == Reduce::Cluster && (p.arch.capability < (9, 0) || splits > 8 || sums > ring) {
            return None;
        }
        let shared_bytes = ring + x + x_scales + slots;
        if shared_bytes + STATIC_BYTES > u64::from(p.arch.shared_bytes) {
            return None;
        }
        Some(Self {
            planes,
            rows,
            strips: strips as u32,
            splits: splits as u32,
            split_blocks: split_blocks as u32,
            reduce,
            grid: (groups * splits) as u32,
            shared_bytes: shared_bytes as u32,
        })
    }

    /// A time in nanoseconds that orders launches of one problem: the busiest block's share of
    /// the weights, each block's copy of its activations, and what adding splits costs.
    fn cost(&self, p: &Problem) -> u64 {
        let processors = u64::from(p.arch.multiprocessors);
        let busiest = u64::from(self.strips * self.split_blocks) * processors;
        let imbalance = busiest * 1000 / (p.strips() * p.k_blocks()).max(1);
        // bytes per nanosecond: 4300 from memory, 5000 from the cache
        let weights = p.weight_bytes() * imbalance.max(1000) / 1000 / 4300;
        let slice = u64::from(self.split_blocks) * TILE_COLUMNS as u64 * p.activations.bytes();
        let activations = u64::from(self.grid) * p.m as u64 * slice / 5000;
        let sums = match (self.splits, self.reduce) {
            (1, _) => 0,
            (_, Reduce::Cluster) => 700,
            (splits, Reduce::Workspace) => 1800 + u64::from(splits) * (p.m * p.n) as u64 * 8 / 4000,
        };
        weights + activations + sums
    }

    pub(super) fn choose(p: &Problem, planes: bool) -> Option<Self> {
        let cluster = Self::with_splits(p, planes, 2, Reduce::Cluster);
        (1..=16)
            .filter_map(|splits| Self::with_splits(p, planes, splits, Reduce::Workspace))
            .chain(cluster)
            .min_by_key(|small| small.cost(p))
    }
}
