//! Launches of the warp-group kernels.

use super::{Activations, Problem};
use crate::order::{TILE_COLUMNS, TILE_ROWS};

/// A launch of a warp-group kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hopper {
    /// Rows of M that a tile covers.
    pub rows: u32,
    /// Blocks of 64 rows of N that a warp group covers.
    pub row_blocks: u32,
    /// Depth of the ring in shared memory.
    pub stages: u32,
    /// Tiles whose K is shared among blocks; the rest is dealt out whole.
    pub split_tiles: u32,
    /// Tiles along M that are worked on together.
    pub raster: u32,
    /// Blocks of threads.
    pub grid: u32,
    /// Dynamic shared memory.
    pub shared_bytes: u32,
}

impl Hopper {
    /// Consumer warp groups of a block.
    pub const GROUPS: u32 = 2;

    /// Rows of N that a tile covers.
    #[must_use]
    pub fn columns(&self) -> u32 {
        64 * self.row_blocks * Self::GROUPS
    }

    /// The launch with tiles of `rows` rows, or `None` where the GPU or the operands forbid it.
    #[must_use]
    pub fn with_tile(p: &Problem, rows: u32, row_blocks: u32, stages: u32) -> Option<Self> {
        if p.arch.capability != (9, 0) || p.segment != 128 || !p.aligned || p.m == 0 {
            return None;
        }
        let columns = 64 * row_blocks * Self::GROUPS;
        let tiles_n = p.n.next_multiple_of(TILE_ROWS).div_ceil(columns as usize) as u32;
        let tiles_m = p.m.div_ceil(rows as usize) as u32;
        let (tiles, processors) = (tiles_m * tiles_n, p.arch.multiprocessors);
        let whole = tiles / processors * processors;
        // A last, partial round is shared out evenly where that beats leaving processors idle and
        // every block gets a part.
        let rest = tiles - whole;
        let units = rest * p.k_blocks() as u32;
        let shared = rest != 0 && rest * 10 < processors * 9 && (whole == 0 || units >= processors);
        // The same number of blocks for every tile leaves fewer partial sums to add.
        let alone = (processors / rest.max(1) * rest).min(units).max(1);
        let split_tiles = if shared { rest } else { 0 };
        let per_scale = matches!(p.activations, Activations::Int8 { per_row: false });
        let weights = rows * TILE_COLUMNS as u32 * p.activations.bytes() as u32;
        let scales = weights + row_blocks * Self::GROUPS * 6144 + 2 * columns;
        let stage = (scales + if per_scale { rows * 4 } else { 0 }).next_multiple_of(1024);
        let epilogue = Self::GROUPS * rows.min(64) * 144 + 16 * stages + Self::GROUPS * 4 + 1024;
        let shared_bytes = stages * stage + epilogue;
        (shared_bytes <= p.arch.shared_bytes).then_some(Self {
            rows,
            row_blocks,
            stages,
            split_tiles,
            raster: 8,
            grid: if shared && whole == 0 { alone } else { processors.min(tiles) },
            shared_bytes,
        })
    }

    pub(super) fn choose(p: &Problem) -> Option<Self> {
        let int8 = p.activations.is_int8();
        let (rows, row_blocks, stages) = match (p.m, int8) {
            (..=32, false) => (32, 1, 8),
            (..=64, false) => (64, 1, 6),
            (..=128, false) => (128, 1, 4),
            (_, false) => (128, 2, 3),
            (..=128, true) => (64, 1, 8),
            (_, true) => (256, 1, 4),
        };
        Self::with_tile(p, rows, row_blocks, stages)
    }
}
