//! Which kernel a product gets: arithmetic on its description, without a GPU.
//!
//! [`choose`] turns a [`Problem`] into a [`Config`] that can be printed, compared in a test
//! or replaced by hand. The constants come from the dated records in `benches/record/`.

mod choice;
mod grouped;
mod hopper;
mod request;
mod small;
mod streamed;
mod teams;
mod tile;

use std::fmt;

pub use choice::choose;
pub use grouped::Grouped;
pub use hopper::Hopper;
pub use small::{Family, Reduce, Small, SmallOptions};
pub use tile::Tile;

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
    /// Whether there is no output, so that nothing is launched.
    pub(crate) fn is_empty(&self) -> bool {
        self.m == 0 || self.n == 0
    }

    /// Strips of 16 weight rows, padding included.
    fn strips(&self) -> u64 {
        (self.n.next_multiple_of(TILE_ROWS) / 16) as u64
    }

    fn k_blocks(&self) -> u64 {
        self.k.div_ceil(TILE_COLUMNS) as u64
    }

    /// Whether a block for each multiprocessor has at most four strips.
    fn is_narrow(&self) -> bool {
        self.strips() <= u64::from(self.arch.multiprocessors) * 4
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

impl Config {
    /// Bytes of workspace the launch needs for partial sums.
    #[must_use]
    pub fn partial_bytes(&self, p: &Problem) -> u64 {
        let n = p.n.next_multiple_of(TILE_ROWS) as u64;
        match self {
            Self::Small(c) if c.has_partial() => u64::from(c.splits) * p.m as u64 * n * 4,
            Self::Tile(c) if c.splits > 1 => u64::from(c.splits) * p.m as u64 * n * 4,
            Self::Hopper(c) => c.partial_bytes(),
            _ => 0,
        }
    }

    /// Counters in the workspace that the launch uses.
    #[must_use]
    pub fn counters(&self) -> u64 {
        match self {
            Self::Small(c) => u64::from(c.grid / c.splits),
            Self::Tile(c) if c.splits > 1 => u64::from(c.grid / c.splits),
            Self::Tile(_) => 0,
            Self::Hopper(c) => c.counters(),
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Small(c) => write!(
                f,
                "{}{}{} rows={} strips={} splits={}{} stages={} grid={} shared={}",
                c.options.family.name(),
                if c.options.fused { " fused" } else { "" },
                if c.x_stages > 0 { format!(" x_stages={}", c.x_stages) } else { String::new() },
                c.rows,
                c.strips,
                c.splits,
                if c.cluster() > 1 { " in a cluster" } else { "" },
                c.stages,
                c.grid,
                c.shared_bytes
            ),
            Self::Tile(c) => {
                write!(f, "tile {}x{} splits={} grid={}", Tile::ROWS, Tile::COLUMNS, c.splits, c.grid)
            }
            Self::Hopper(c) => write!(
                f,
                "hopper {}x{} splits={} split_tiles={} share={} grid={} shared={}",
                c.rows,
                c.columns(),
                c.splits,
                c.split_tiles,
                c.share,
                c.grid,
                c.shared_bytes
            ),
        }
    }
}
