//! Launches of the small-M kernels whose warps load activations while weights come
//! (`kernels/include/flexq/small_streamed.cuh`).

use super::small::{Cut, share, warps};
use super::{Activations, Family, Problem, Reduce, Small, SmallOptions};

/// Bytes that a warp keeps of a row of activations: 128 columns, padded; with codes, their scale.
const FLOAT_BYTES: u64 = 128 * 2 + 16;
const CODE_BYTES: u64 = 128 + 16 + 4;
/// Bytes of a unit of weights, its scales and its barrier.
const STAGE_BYTES: u64 = 1536 + 32 + 8;
/// Bytes of a warp's sums of a strip and eight rows.
const SUM_BYTES: u64 = 512;
/// Depth of a warp's ring; less where a warp has so many units that its start matters little: memory
/// reads faster with fewer places asked for at a time.
const STAGES: u64 = 3;
const LONG: u64 = 48;
const LONG_STAGES: u64 = 2;

/// What can be chosen of such a launch.
#[derive(Clone, Copy)]
pub(super) struct Streamed {
    /// Most depth of a warp's ring; `None` for what is thought best.
    pub stages: Option<u64>,
    /// Blocks of threads for each multiprocessor.
    pub blocks: u64,
    /// Blocks of a cluster, that share K.
    pub splits: u64,
}

impl Small {
    /// The launch with these options, if it fits.
    pub(super) fn streamed_with(p: &Problem, o: Streamed) -> Option<Self> {
        let (fits, x_bytes) = match p.activations {
            // A lane brings 16 bytes of x at a time, so its rows are made of whole ones.
            Activations::F16 | Activations::BF16 => (p.aligned && p.k.is_multiple_of(8), FLOAT_BYTES),
            // A warp sees 128 columns, not the largest number of a row.
            Activations::Int8 { per_row } => (!per_row, CODE_BYTES),
        };
        let (m, k_blocks) = (p.m as u64, p.k_blocks());
        let possible = o.blocks > 0 && (1..=k_blocks.min(8)).contains(&o.splits);
        if p.is_empty() || p.m > 8 || p.arch.capability < (9, 0) || p.segment != 128 || !fits || !possible {
            return None;
        }
        let warps = warps(true);
        let cut = Cut::new(p, u64::from(p.arch.multiprocessors) * o.blocks, o.splits);
        let Cut { strips, splits, split_blocks, .. } = cut;
        if !cut.is_countable(warps) {
            return None;
        }
        let units = (strips * split_blocks).div_ceil(warps);
        let wanted = o.stages.unwrap_or(if units > LONG { LONG_STAGES } else { STAGES });

        let cluster = if splits > 1 { strips.next_multiple_of(splits) } else { 0 };
        let places = warps * (m * x_bytes).next_multiple_of(16);
        let fixed = places + warps * strips * SUM_BYTES + cluster * SUM_BYTES;
        let launch = |room: u64| {
            let most = share(p, room);
            let depth = most.checked_sub(fixed)? / (warps * STAGE_BYTES);
            let stages = wanted.min(units).max(1);
            // With less than two, a warp would wait for each unit.
            if depth < stages.min(2) {
                return None;
            }
            let stages = stages.min(depth);
            let needed = warps * stages * STAGE_BYTES + fixed;
            // The same share for every launch that another can lie beside; see `Small::with`.
            let shared = if room > 1 { most } else { needed.max(u64::from(p.arch.shared_bytes) / 2) };
            let options = SmallOptions {
                family: Family::Streamed,
                fused: p.activations.is_int8(),
                splits: o.splits,
                reduce: Reduce::Cluster,
                stages: wanted,
                blocks: o.blocks,
                room,
            };
            Some(Self { stages: stages as u32, ..cut.launch(p, options, 8, warps, shared) })
        };
        launch(2).or_else(|| launch(1))
    }

    /// The launch thought fastest, from runs on an H200.
    pub(super) fn choose_streamed(p: &Problem) -> Option<Self> {
        let (multiprocessors, k_blocks) = (u64::from(p.arch.multiprocessors), p.k_blocks());
        let way = |blocks, splits| Self::streamed_with(p, Streamed { stages: None, blocks, splits });
        // Two blocks of a long launch lie beside each other; of a short one, one and the next launch's.
        let wide = p.strips() * 2 >= multiprocessors * 7;
        let long = p.strips() * k_blocks >= 15 * warps(true) * multiprocessors;
        let least = if wide && long { 2 } else { 1 };
        // Of a narrow product, each of two blocks quantizes half of every row.
        if p.activations.is_int8()
            && least == 1
            && let Some(halves) = way(1, 2)
        {
            return Some(halves);
        }
        // Sums of few enough strips leave room.
        let ways = || [1, 2, 4, 8, 16].into_iter().filter(|&n| n >= least).filter_map(|n| way(n, 1));
        ways().find(|launch| launch.options.room > 1).or_else(|| ways().next())
    }
}
