//! Which kernel a product gets: arithmetic on its description, without a GPU.
//!
//! [`choose`] turns a [`Problem`] into a [`Config`] that can be printed, compared in a test
//! or replaced by hand. The constants come from the dated records in `benches/record/`.

use std::fmt;

use crate::order::{TILE_COLUMNS, TILE_ROWS};

/// What of a GPU the choice depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arch {
    /// Compute capability, `(9, 0)` for Hopper.
    pub capability: (u32, u32),
    /// Number of multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of shared memory a block may use.
    pub shared_bytes: u32,
}

/// Activations as the kernels read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activations {
    /// Half precision.
    F16,
    /// bfloat16.
    BF16,
    /// Quantized, with a scale per 128 columns or, where the flag is set, per row.
    Int8 {
        /// One scale for a whole row.
        per_row: bool,
    },
}

impl Activations {
    /// How kernel names call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::Int8 { .. } => "s8",
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::Int8 { .. } => 1,
        }
    }

    fn is_int8(self) -> bool {
        matches!(self, Self::Int8 { .. })
    }
}

/// A product `[m, k] x [n, k]^T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The GPU.
    pub arch: Arch,
    /// Rows of activations.
    pub m: usize,
    /// Rows of the weight.
    pub n: usize,
    /// Columns of both.
    pub k: usize,
    /// Kind of activations.
    pub activations: Activations,
    /// Columns per weight scale in device order: 32, 64 or 128.
    pub segment: usize,
    /// Rows of activations start at multiples of 16 bytes, as Hopper's copy engine needs.
    pub aligned: bool,
}

impl Problem {
    /// Strips of 16 weight rows, padding included.
    fn strips(&self) -> u64 {
        (self.n.next_multiple_of(TILE_ROWS) / 16) as u64
    }

    fn k_blocks(&self) -> u64 {
        self.k.div_ceil(TILE_COLUMNS) as u64
    }

    /// Bytes of weights and their scales.
    fn weight_bytes(&self) -> u64 {
        self.strips() * self.k_blocks() * (1536 + 32 * 128 / self.segment as u64)
    }
}

/// A kernel and how it is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Config {
    /// For few rows: reads weights at memory speed.
    Small(Small),
    /// For any number of rows, on any GPU.
    Tile(Tile),
    /// For many rows, on Hopper.
    Hopper(Hopper),
}

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

    fn choose(p: &Problem, planes: bool) -> Option<Self> {
        let cluster = Self::with_splits(p, planes, 2, Reduce::Cluster);
        (1..=16)
            .filter_map(|splits| Self::with_splits(p, planes, splits, Reduce::Workspace))
            .chain(cluster)
            .min_by_key(|small| small.cost(p))
    }
}

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

    fn choose(p: &Problem) -> Self {
        let tiles = (p.m.div_ceil(Self::ROWS) * p.n.div_ceil(Self::COLUMNS)) as u64;
        let room = u64::from(p.arch.multiprocessors) / tiles.max(1);
        Self::with_splits(p, room.clamp(1, 8.min(p.k_blocks().div_ceil(4))))
    }
}

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

    fn choose(p: &Problem) -> Option<Self> {
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

impl Config {
    /// Bytes of workspace the launch needs for partial sums.
    #[must_use]
    pub fn partial_bytes(&self, p: &Problem) -> u64 {
        let n = p.n.next_multiple_of(TILE_ROWS) as u64;
        match self {
            Self::Small(c) if c.splits > 1 && c.reduce == Reduce::Workspace => {
                u64::from(c.splits) * p.m as u64 * n * 4
            }
            Self::Tile(c) if c.splits > 1 => u64::from(c.splits) * p.m as u64 * n * 4,
            Self::Hopper(c) if c.split_tiles > 0 => {
                u64::from(c.grid + c.split_tiles) * u64::from(c.columns() * c.rows) * 4
            }
            _ => 0,
        }
    }

    /// Counters in the workspace that the launch uses.
    #[must_use]
    pub fn counters(&self) -> u64 {
        match self {
            Self::Small(c) => u64::from(c.grid / c.splits),
            Self::Tile(c) => u64::from(c.grid / c.splits),
            Self::Hopper(c) => u64::from(c.split_tiles * Hopper::GROUPS),
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Small(c) => write!(
                f,
                "small{} rows={} strips={} splits={}{} grid={} shared={}",
                if c.planes { "-planes" } else { "" },
                c.rows,
                c.strips,
                c.splits,
                if c.splits > 1 && c.reduce == Reduce::Cluster { " in a cluster" } else { "" },
                c.grid,
                c.shared_bytes
            ),
            Self::Tile(c) => {
                write!(f, "tile {}x{} splits={} grid={}", Tile::ROWS, Tile::COLUMNS, c.splits, c.grid)
            }
            Self::Hopper(c) => write!(
                f,
                "hopper {}x{} stages={} split_tiles={} grid={} shared={}",
                c.rows,
                c.columns(),
                c.stages,
                c.split_tiles,
                c.grid,
                c.shared_bytes
            ),
        }
    }
}

/// The kernel for a product.
#[must_use]
pub fn choose(p: &Problem) -> Config {
    let few = if p.arch.capability == (9, 0) && p.aligned && p.segment == 128 { 16 } else { 24 };
    if p.m <= few
        && let Some(small) = Small::choose(p, false)
    {
        return Config::Small(small);
    }
    Hopper::choose(p).map_or_else(|| Config::Tile(Tile::choose(p)), Config::Hopper)
}

/// The bit-plane kernel for a product of up to eight rows of int8 activations.
#[must_use]
pub fn choose_planes(p: &Problem) -> Option<Config> {
    Small::choose(p, true).map(Config::Small)
}

#[cfg(test)]
mod tests {
    use super::*;

    const H200: Arch = Arch { capability: (9, 0), multiprocessors: 132, shared_bytes: 232_448 };
    const A100: Arch = Arch { capability: (8, 0), multiprocessors: 108, shared_bytes: 166_912 };
    const L40: Arch = Arch { capability: (8, 9), multiprocessors: 142, shared_bytes: 101_376 };

    fn problem(arch: Arch, m: usize, n: usize, k: usize, activations: Activations) -> Problem {
        Problem { arch, m, n, k, activations, segment: 128, aligned: k.is_multiple_of(8) }
    }

    #[test]
    fn small_products_read_the_weights_once() {
        let p = problem(H200, 1, 28672, 8192, Activations::F16);
        assert_eq!(choose(&p).to_string(), "small rows=8 strips=14 splits=1 grid=128 shared=94064");
        let Config::Small(c) = choose(&problem(H200, 16, 8192, 8192, Activations::BF16)) else { panic!() };
        assert_eq!((c.rows, c.splits, c.reduce), (16, 2, Reduce::Cluster));
    }

    #[test]
    fn many_rows_use_what_the_gpu_has() {
        let int8 = Activations::Int8 { per_row: false };
        assert!(matches!(choose(&problem(H200, 4096, 8192, 8192, int8)), Config::Hopper(_)));
        assert!(matches!(choose(&problem(A100, 4096, 8192, 8192, int8)), Config::Tile(_)));
        assert!(matches!(choose(&problem(H200, 4096, 100, 1001, Activations::F16)), Config::Tile(_)));
    }

    #[test]
    fn every_choice_fits_the_gpu() {
        let kinds = [Activations::F16, Activations::BF16, Activations::Int8 { per_row: true }];
        for arch in [H200, A100, L40] {
            for activations in kinds {
                for (n, k) in [(1, 1), (64, 128), (100, 172), (4096, 11008), (8192, 28672), (128_256, 4096)] {
                    for m in [1, 7, 8, 9, 16, 17, 31, 33, 64, 65, 128, 1000, 16384] {
                        for segment in [32, 64, 128] {
                            let p = Problem { segment, ..problem(arch, m, n, k, activations) };
                            let config = choose(&p);
                            let shared = match config {
                                Config::Small(c) => c.shared_bytes,
                                Config::Tile(_) => Tile::shared_bytes(activations, segment),
                                Config::Hopper(c) => c.shared_bytes,
                            };
                            assert!(shared <= arch.shared_bytes, "{config} {p:?}");
                            if let Config::Small(c) = config {
                                assert!(u64::from(c.strips) * u64::from(c.grid / c.splits) >= p.strips());
                                assert!(u64::from(c.split_blocks * c.splits) >= p.k_blocks());
                            }
                        }
                    }
                }
            }
        }
    }
}
