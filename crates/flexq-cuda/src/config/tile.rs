//! Launches of the tile kernels.

use super::{Activations, Problem};
use crate::order::TILE_COLUMNS;

/// A launch of a tile kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Parts of K.
    pub splits: u32,
    /// Blocks of 128 columns in a part.
    pub split_blocks: u32,
    /// Blocks of threads.
    pub grid: u32,
}

impl Tile {
    /// Rows of M and of N that a block computes.
    pub const ROWS: usize = 64;
    /// See above.
    pub const COLUMNS: usize = 128;

    /// Dynamic shared memory: three stages.
    #[must_use]
    pub fn shared_bytes(activations: Activations, segment: usize) -> u32 {
        let x = Self::ROWS as u64 * TILE_COLUMNS as u64 * activations.bytes();
        let x_scales = if activations.is_int8() { Self::ROWS as u64 * 4 } else { 0 };
        let scales = (Self::COLUMNS * 128 / segment * 2) as u64;
        (3 * (12288 + scales + x_scales + x)) as u32
    }

    /// The launch with `splits` parts of K.
    #[must_use]
    pub fn with_splits(p: &Problem, splits: u64) -> Self {
        let tiles = (p.m.div_ceil(Self::ROWS) * p.n.div_ceil(Self::COLUMNS)) as u64;
        let split_blocks = p.k_blocks().div_ceil(splits.max(1)).max(1);
        let splits = p.k_blocks().div_ceil(split_blocks);
        Self { splits: splits as u32, split_blocks: split_blocks as u32, grid: (tiles * splits) as u32 }
    }

    pub(super) fn choose(p: &Problem) -> Self {
        let tiles = (p.m.div_ceil(Self::ROWS) * p.n.div_ceil(Self::COLUMNS)) as u64;
        let room = u64::from(p.arch.multiprocessors) / tiles.max(1);
        Self::with_splits(p, room.clamp(1, p.k_blocks().div_ceil(4).clamp(1, 8)))
    }
}
