//! Launches of the warp-group kernels.

use super::{Activations, Problem};
use crate::order::TILE_ROWS;

/// What a kernel is instantiated with: `kernels/sm90_*.cu`.
struct Kernel {
    int8: bool,
    /// Rows of M that a tile covers.
    rows: u32,
    /// Consumer warp groups, each of 64 rows of N.
    groups: u32,
    /// Stages of weights, 128 columns each.
    stages: u32,
    /// Stages of activations, each `boxes` times 128 bytes of every row.
    x_stages: u32,
    boxes: u32,
    /// Blocks of threads that share activations.
    cluster: u32,
}

/// Fields in their order, clusters apart.
const fn kernel(int8: bool, rows: u32, groups: u32, stages: u32, x_stages: u32, boxes: u32) -> Kernel {
    Kernel { int8, rows, groups, stages, x_stages, boxes, cluster: 1 }
}

static KERNELS: [Kernel; 8] = [
    kernel(false, 32, 2, 8, 8, 2),
    kernel(false, 64, 2, 6, 6, 2),
    kernel(false, 128, 2, 4, 4, 2),
    Kernel { cluster: 2, ..kernel(false, 256, 2, 3, 5, 1) },
    kernel(true, 32, 2, 10, 10, 1),
    kernel(true, 64, 2, 8, 8, 1),
    kernel(true, 128, 2, 6, 6, 1),
    kernel(true, 256, 2, 4, 4, 1),
];

impl Kernel {
    fn shared_bytes(&self, block_scales: bool) -> u32 {
        let x = self.boxes * self.rows * 128 + if block_scales { self.rows * 4 } else { 0 };
        let weights = self.groups * (6144 + 128);
        let output = self.groups * if self.rows < 64 || self.groups > 2 { 32 } else { 64 } * 144;
        let barriers = 16 * (self.stages + self.x_stages);
        self.x_stages * x.next_multiple_of(1024)
            + self.stages * weights
            + output
            + barriers
            + self.groups * 4
            + 1024
    }
}

/// A launch of a warp-group kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hopper {
    /// Rows of M that a tile covers.
    pub rows: u32,
    /// Warp groups of a block that multiply, each 64 rows of N.
    pub groups: u32,
    /// Blocks that work on a tile together.
    pub cluster: u32,
    /// Tiles whose K is shared among clusters; the rest is dealt out whole.
    pub split_tiles: u32,
    /// Tiles along M that are worked on together.
    pub raster: u32,
    /// Blocks of threads.
    pub grid: u32,
    /// Dynamic shared memory.
    pub shared_bytes: u32,
}

impl Hopper {
    /// Rows of N that a tile covers.
    #[must_use]
    pub fn columns(&self) -> u32 {
        64 * self.groups * self.cluster
    }

    /// Clusters of blocks.
    #[must_use]
    pub fn workers(&self) -> u32 {
        self.grid / self.cluster
    }

    /// Threads of a block: the groups and the producers.
    #[must_use]
    pub fn threads(&self) -> u32 {
        128 * (self.groups + 1)
    }

    /// The launch with tiles of `rows` rows of M, or `None` where there is no such kernel or the GPU
    /// or the operands forbid it.
    #[must_use]
    pub fn with_rows(p: &Problem, rows: u32) -> Option<Self> {
        if p.arch.capability != (9, 0) || p.segment != 128 || !p.aligned || p.m == 0 {
            return None;
        }
        let int8 = p.activations.is_int8();
        let kernel = KERNELS.iter().find(|k| k.int8 == int8 && k.rows == rows)?;
        let columns = 64 * kernel.groups * kernel.cluster;
        let tiles_n = p.n.next_multiple_of(TILE_ROWS).div_ceil(columns as usize) as u32;
        let tiles_m = p.m.div_ceil(rows as usize) as u32;
        let (tiles, most) = (tiles_m * tiles_n, p.arch.multiprocessors / kernel.cluster);
        let whole = tiles / most * most;
        // A last, partial round is shared out evenly where that beats leaving processors idle and
        // every worker gets a part.
        let rest = tiles - whole;
        let units = rest * p.k_blocks() as u32;
        let shared = rest != 0 && rest * 10 < most * 9 && (whole == 0 || units >= most);
        // The same number of workers for every tile leaves fewer partial sums to add.
        let alone = (most / rest.max(1) * rest).min(units).max(1);
        let workers = if shared && whole == 0 { alone } else { most.min(tiles) };
        let shared_bytes = kernel.shared_bytes(p.activations == Activations::Int8 { per_row: false });
        (shared_bytes <= p.arch.shared_bytes).then_some(Self {
            rows,
            groups: kernel.groups,
            cluster: kernel.cluster,
            split_tiles: if shared { rest } else { 0 },
            raster: 8,
            grid: workers * kernel.cluster,
            shared_bytes,
        })
    }

    pub(super) fn choose(p: &Problem) -> Option<Self> {
        let rows = match p.m {
            0..=32 => 32,
            33..=64 => 64,
            65..=128 => 128,
            _ => 256,
        };
        Self::with_rows(p, rows)
    }
}
