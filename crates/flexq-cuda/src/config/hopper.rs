//! Launches of the warp-group kernels.

use super::{Activations, Problem};
use crate::order::TILE_ROWS;

/// What the kernels of a file take.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Half precision or bfloat16.
    Float,
    /// int8, one scale per row.
    Rows,
    /// int8, a scale per (row, 128 columns).
    Blocks,
}

impl Kind {
    fn of(activations: Activations) -> Self {
        match activations {
            Activations::F16 | Activations::BF16 => Self::Float,
            Activations::Int8 { per_row: true } => Self::Rows,
            Activations::Int8 { per_row: false } => Self::Blocks,
        }
    }
}

/// What a kernel is instantiated with: `kernels/include/flexq/sm90/kernels.cuh`.
struct Kernel {
    kind: Kind,
    /// Rows of M that a tile covers.
    rows: u32,
    /// Consumer warp groups of a block, each of 64 rows of N.
    groups: u32,
    /// Blocks of threads that share activations.
    cluster: u32,
    /// Stages of weights, 128 columns each.
    stages: u32,
    /// Stages of activations, each `boxes` times 128 bytes of every row.
    x_stages: u32,
    boxes: u32,
    /// Nanoseconds that a multiprocessor spends on 128 columns of a tile.
    time: u64,
}

/// One kernel whose activations come by whole K blocks, one block alone.
const fn kernel(kind: Kind, rows: u32, groups: u32, (stages, x_stages): (u32, u32), time: u64) -> Kernel {
    let boxes = if let Kind::Float = kind { 2 } else { 1 };
    Kernel { kind, rows, groups, cluster: 1, stages, x_stages, boxes, time }
}

static KERNELS: [Kernel; 22] = [
    kernel(Kind::Float, 32, 2, (8, 8), 444),
    kernel(Kind::Float, 32, 3, (8, 8), 690),
    kernel(Kind::Float, 64, 2, (6, 6), 505),
    kernel(Kind::Float, 64, 3, (6, 6), 826),
    kernel(Kind::Float, 128, 2, (4, 4), 693),
    kernel(Kind::Float, 128, 3, (3, 3), 1066),
    kernel(Kind::Float, 176, 2, (3, 3), 929),
    kernel(Kind::Float, 192, 2, (3, 3), 1003),
    Kernel { boxes: 1, ..kernel(Kind::Float, 256, 2, (3, 5), 1329) },
    Kernel { boxes: 1, cluster: 2, ..kernel(Kind::Float, 256, 2, (3, 5), 1270) },
    kernel(Kind::Rows, 32, 2, (10, 10), 302),
    kernel(Kind::Rows, 64, 2, (8, 8), 429),
    kernel(Kind::Rows, 128, 2, (6, 6), 533),
    kernel(Kind::Rows, 128, 3, (5, 5), 978),
    kernel(Kind::Rows, 176, 2, (5, 5), 719),
    kernel(Kind::Rows, 256, 2, (4, 4), 952),
    kernel(Kind::Blocks, 32, 2, (10, 10), 269),
    kernel(Kind::Blocks, 64, 2, (8, 8), 376),
    kernel(Kind::Blocks, 128, 2, (6, 6), 691),
    kernel(Kind::Blocks, 128, 3, (5, 5), 1072),
    kernel(Kind::Blocks, 176, 2, (5, 5), 903),
    kernel(Kind::Blocks, 256, 2, (4, 4), 1235),
];

/// Nanoseconds, and tenths of one for each row of a tile.
struct Cost(u64, u64);

impl Cost {
    fn of(&self, rows: u32) -> u64 {
        self.0 + u64::from(rows) * self.1 / 10
    }
}

/// What a launch costs beyond its K blocks.
struct Costs {
    /// Whole tiles.
    whole: Cost,
    /// More tiles than workers, the K of some or all dealt out.
    dealt: Cost,
    /// Fewer tiles than workers, who all share their K.
    few: Cost,
    /// The same number of workers shares the K of each tile, beside what follows.
    even: Cost,
    /// Until the sums of a worker have reached the one that adds them.
    travel: Cost,
    /// Two blocks share the K of a tile.
    cluster: Cost,
    /// A tile of a worker that is not its last: tenths of a nanosecond a row.
    next: u64,
    /// `dealt`: workers are at different columns then, and share less of x in the cache. Hundred-thousandths of the
    /// time of K blocks, and of that for each megabyte of x.
    lag: (u64, u64),
}

static FLOAT: Costs = Costs {
    whole: Cost(1008, 49),
    dealt: Cost(5189, 32),
    few: Cost(4650, 204),
    even: Cost(656, 290),
    travel: Cost(2344, 31),
    cluster: Cost(3578, 6),
    next: 197,
    lag: (3881, 11),
};

static INT8: Costs = Costs {
    whole: Cost(1981, 56),
    dealt: Cost(5997, 0),
    few: Cost(5028, 160),
    even: Cost(2177, 190),
    travel: Cost(2219, 10),
    cluster: Cost(1652, 125),
    next: 138,
    lag: (900, 60),
};

impl Kernel {
    /// Rows of N that a cluster covers.
    fn columns(&self) -> u32 {
        64 * self.groups * self.cluster
    }

    fn shared_bytes(&self) -> u32 {
        let scales = if self.kind == Kind::Blocks { self.rows * 4 } else { 0 };
        let x = self.boxes * self.rows * 128 + scales;
        let weights = self.groups * (6144 + 128);
        let slice = match self.rows {
            64 => 32,
            rows if rows > 64 && rows.is_multiple_of(64) => 64,
            _ => 16,
        };
        let output = self.groups * slice * 144;
        let barriers = 16 * (self.stages + self.x_stages);
        self.x_stages * x.next_multiple_of(1024) + self.stages * weights + output + barriers + 8 + 1024
    }

    /// Every launch for `p`, each with a time in nanoseconds that orders them.
    fn launches(&self, p: &Problem) -> Vec<(u64, Hopper)> {
        // Kernels count tiles, and K blocks of those that are split, up to this.
        const MOST: u64 = 1 << 21;
        let k_blocks = p.k_blocks();
        let tiles_n = p.n.next_multiple_of(TILE_ROWS).div_ceil(self.columns() as usize);
        let Some(tiles) =
            p.m.div_ceil(self.rows as usize).checked_mul(tiles_n).filter(|&n| (n as u64) < MOST)
        else {
            return Vec::new();
        };
        let tiles = tiles as u32;
        let most = p.arch.multiprocessors / self.cluster;
        let base = Hopper {
            rows: self.rows,
            groups: self.groups,
            cluster: self.cluster,
            splits: 1,
            split_tiles: 0,
            share: 0,
            raster: 8,
            grid: 0,
            shared_bytes: self.shared_bytes(),
        };
        let costs = if self.kind == Kind::Float { &FLOAT } else { &INT8 };
        // Workers that multiply `units` K blocks, and store sums of `tiles` tiles before the last.
        let time = |units: u64, tiles: u64, cost: &Cost| {
            units * self.time + Cost(0, tiles * costs.next).of(self.rows) + cost.of(self.rows)
        };
        let grid = |workers: u32| workers * self.cluster;
        let rounds = u64::from(tiles.div_ceil(most));
        let mut launches = vec![(
            time(rounds * k_blocks, rounds.saturating_sub(1), &costs.whole),
            Hopper { grid: grid(most.min(tiles)), ..base },
        )];
        // A full round and a partial one are dealt out by K blocks, which leaves two parts of a tile.
        let (whole, rest) = (u64::from(tiles / most), tiles % most);
        let units = u64::from(tiles) * k_blocks;
        let each = units.div_ceil(u64::from(most));
        if rest > 0 && whole > 0 && u64::from(rest + most) * k_blocks < MOST {
            let megabytes = p.m as u64 * p.k as u64 * p.activations.bytes() / 1_000_000;
            let lag = each * self.time * (costs.lag.0 + costs.lag.1 * megabytes) / 100_000;
            let launch = Hopper { grid: grid(most), split_tiles: rest + most, ..base };
            launches.push((time(each, whole, &costs.dealt) + lag, launch));
        }
        if whole == 0 && (u64::from(most)..MOST).contains(&units) {
            let launch = Hopper { grid: grid(most), split_tiles: tiles, ..base };
            launches.push((time(each, 0, &costs.few), launch));
        }
        let sharers = u64::from(most / tiles).min(k_blocks);
        if sharers > 1 && units < MOST {
            // The worker of a tile's last columns adds the sums of the others. It has more K blocks than they, so that
            // it multiplies until those sums are there.
            let travel = costs.travel.of(self.rows);
            let time = |share: u64| {
                let last = k_blocks - (sharers - 1) * share;
                (last * self.time).max(share * self.time + travel)
            };
            let share = (1..=k_blocks / sharers).rev().min_by_key(|&share| time(share)).unwrap_or(1);
            let workers = tiles * sharers as u32;
            let launch = Hopper { grid: grid(workers), split_tiles: tiles, share: share as u32, ..base };
            launches.push((time(share) + costs.even.of(self.rows), launch));
        }
        // Larger clusters do not fill the multiprocessors.
        if self.cluster == 1 && tiles * 2 <= most && k_blocks >= 2 {
            let launch = Hopper { splits: 2, grid: tiles * 2, ..base };
            launches.push((time(k_blocks.div_ceil(2), 0, &costs.cluster), launch));
        }
        launches
    }
}

/// A launch of a warp-group kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hopper {
    /// Rows of M that a tile covers.
    pub rows: u32,
    /// Warp groups of a block that multiply, each of 64 rows of N.
    pub groups: u32,
    /// Blocks that share activations.
    pub cluster: u32,
    /// Blocks, then of one cluster, that share the K of a tile.
    pub splits: u32,
    /// Tiles whose K is shared among clusters; the rest is dealt out whole.
    pub split_tiles: u32,
    /// Where the same number of workers shares each split tile: K blocks of each but the last, which has the
    /// rest. 0 where those of all split tiles are dealt out in equal ranges.
    pub share: u32,
    /// Tiles along M that are worked on together.
    pub raster: u32,
    /// Blocks of threads.
    pub grid: u32,
    /// Dynamic shared memory.
    pub shared_bytes: u32,
}

impl Hopper {
    /// Rows of N that a cluster covers.
    #[must_use]
    pub fn columns(&self) -> u32 {
        64 * self.groups * self.cluster
    }

    /// How `k_blocks` of each split tile are dealt out: how many workers have a tile, or 0 for ranges across tiles;
    /// how many K blocks a worker has; and how many workers have one more.
    #[must_use]
    pub fn ranges(&self, k_blocks: u32) -> (u32, u32, u32) {
        let workers = self.grid / self.cluster;
        match (self.split_tiles, self.share) {
            (0, _) => (0, 0, 0),
            (tiles, 0) => (0, tiles * k_blocks / workers, tiles * k_blocks % workers),
            (tiles, share) => (workers / tiles, share, 0),
        }
    }

    /// Threads of a block: the groups that multiply, and the producers.
    #[must_use]
    pub fn threads(&self) -> u32 {
        128 * (self.groups + 1)
    }

    /// Bytes of partial sums in the workspace.
    #[must_use]
    pub fn partial_bytes(&self) -> u64 {
        match self.split_tiles {
            0 => 0,
            _ => u64::from(self.grid / self.cluster) * u64::from(self.columns() * self.rows) * 4,
        }
    }

    /// As many bytes of partial sums as the best launch for any product of up to `m` rows needs.
    #[must_use]
    pub fn most_partial_bytes(p: &Problem, m: usize) -> u64 {
        let groups_rows = match m {
            0..=32 => 3 * 32,
            33..=64 => 3 * 64,
            65..=128 => 3 * 128,
            _ => 2 * 256,
        };
        u64::from(p.arch.multiprocessors) * 64 * groups_rows * 4
    }

    /// Counters in the workspace.
    #[must_use]
    pub fn counters(&self) -> u64 {
        match self.split_tiles {
            0 => 0,
            _ => u64::from(self.grid),
        }
    }

    pub(super) fn choose(p: &Problem) -> Option<Self> {
        Self::best(p, |_| true)
    }

    /// The launch thought best of those that `which` accepts, or `None` where there is none or the GPU
    /// or the operands forbid it.
    pub(super) fn best(p: &Problem, which: impl Fn(&Self) -> bool) -> Option<Self> {
        if p.arch.capability != (9, 0) || p.segment != 128 || !p.aligned || p.is_empty() {
            return None;
        }
        let kind = Kind::of(p.activations);
        KERNELS
            .iter()
            .filter(|kernel| kernel.kind == kind)
            .flat_map(|kernel| kernel.launches(p))
            .filter(|(_, launch)| launch.shared_bytes <= p.arch.shared_bytes && which(launch))
            .min_by_key(|&(time, _)| time)
            .map(|(_, launch)| launch)
    }
}
