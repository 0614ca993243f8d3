//! Launches of the small-M kernels whose warps form teams that share activations
//! (`kernels/include/flexq/small_teams.cuh`).

use super::small::{Cut, share, warps};
use super::{Family, Problem, Reduce, Small, SmallOptions};
use crate::order::TILE_COLUMNS;

/// Bytes of a strip of a K block of weights and its scales, and of a stage's barrier.
const STRIP_BYTES: u64 = 1536 + 32;
const BARRIER_BYTES: u64 = 8;
/// Bytes of the words of a stage of activations; with codes, four more for each row.
const WORD_BYTES: u64 = 16;
/// Bytes of a strip's sums of eight rows.
const SUM_BYTES: u64 = 512;
/// Depth of a warp's ring: K blocks of two strips, or of one, where more fit.
const STAGES: u64 = 2;
const MOST_STAGES: u64 = 3;
/// Most depth of a team's ring of activations; less than two would make a team wait for each.
const X_STAGES: u64 = 4;

/// What can be chosen of such a launch; `None` for what is thought best.
#[derive(Clone, Copy, Default)]
pub(super) struct Teams {
    /// Most depth of a warp's ring.
    pub stages: Option<u64>,
    /// Most depth of a team's ring of activations.
    pub x_stages: Option<u64>,
    /// Blocks of threads for each multiprocessor.
    pub blocks: Option<u64>,
    /// Blocks of a cluster, that share K.
    pub splits: Option<u64>,
    /// Blocks a multiprocessor has shared memory for.
    pub room: Option<u64>,
}

/// Strips that a warp multiplies: what there are registers for.
const fn own(rows: u64) -> u64 {
    if rows <= 16 { 2 } else { 1 }
}

impl Small {
    /// The launch with these options, if it fits.
    pub(super) fn teams_with(p: &Problem, o: Teams) -> Option<Self> {
        let int8 = p.activations.is_int8();
        let rows = match p.m {
            1..=8 if int8 => 8,
            9..=16 => 16,
            17..=32 => 32,
            _ => return None,
        };
        // Codes are written where copies can start.
        let aligned = p.aligned || int8;
        if p.is_empty() || p.arch.capability < (9, 0) || p.segment != 128 || !aligned {
            return None;
        }
        let k_blocks = p.k_blocks();
        let (blocks, splits) = (o.blocks.unwrap_or(1), o.splits.unwrap_or(1));
        if blocks == 0 || !(1..=k_blocks.min(8)).contains(&splits) {
            return None;
        }
        let cut = Cut::new(p, u64::from(p.arch.multiprocessors) * blocks, splits);
        let Cut { strips, splits, split_blocks, .. } = cut;
        if !cut.is_countable(warps(true)) {
            return None;
        }
        let own = own(rows);
        let members = strips.div_ceil(own);
        let most_teams = warps(true) / members;
        let wanted = o.stages.unwrap_or(if own == 1 { MOST_STAGES } else { STAGES });
        let wanted_x = o.x_stages.unwrap_or(X_STAGES).max(2);

        let octets = strips * (p.m as u64).div_ceil(8);
        let cluster = if splits > 1 { octets.next_multiple_of(splits) * SUM_BYTES } else { 0 };
        let x_bytes = rows * TILE_COLUMNS as u64 * p.activations.bytes();
        let words = WORD_BYTES + if int8 { rows * 4 } else { 0 };
        let rings = |warps: u64, stages: u64| {
            warps * stages * own * STRIP_BYTES + (warps * stages * BARRIER_BYTES).next_multiple_of(16)
        };
        let launch = |room: u64| {
            let share = share(p, room);
            let most = share.checked_sub(cluster)?;
            // No warp without a team, whose ring others can use. With two stages of x members wait for each
            // other: rather three than a fifth team.
            let teams_with = |stages: u64| {
                let least = |teams| if members > 1 && teams > 4 { 3 } else { 2 };
                let needed =
                    |teams: u64| rings(teams * members, stages) + teams * least(teams) * (x_bytes + words);
                (1..=most_teams).rev().find(|&teams| needed(teams) <= most).unwrap_or(0)
            };
            let mut stages = wanted.min(split_blocks);
            // Rather two stages of weights than fewer teams.
            if o.stages.is_none() && teams_with(stages) < teams_with(STAGES) {
                stages = STAGES;
            }
            let teams = teams_with(stages);
            if teams == 0 {
                return None;
            }
            let (warps, rings) = (teams * members, rings(teams * members, stages));
            let x_stages = ((most - rings) / (x_bytes + words)).min(teams * wanted_x);
            // Sums lie where rings were; blocks with one strip less may have more teams.
            let fits = |strips: u64| {
                let teams = (warps / strips.div_ceil(own)).min(x_stages / 2);
                teams > 0 && teams * strips * (rows / 8) * SUM_BYTES <= x_stages * x_bytes + rings
            };
            if !fits(strips) || strips > 1 && !fits(strips - 1) {
                return None;
            }
            let needed = rings + x_stages * (x_bytes + words) + cluster;
            // The same share for every launch that another can lie beside; see `Small::with`.
            let shared = if room > 1 { share } else { needed.max(u64::from(p.arch.shared_bytes) / 2) };
            let options = SmallOptions {
                family: Family::Teams,
                fused: false,
                splits,
                reduce: Reduce::Cluster,
                stages: wanted,
                blocks,
                room,
            };
            let (stages, x_stages) = (stages as u32, x_stages as u32);
            Some(Self { stages, x_stages, ..cut.launch(p, options, rows as u32, warps, shared) })
        };
        match o.room {
            Some(room) => launch(room),
            None => launch(2).or_else(|| launch(1)),
        }
    }

    /// The launch thought fastest of those with these options, from runs on an H200.
    pub(super) fn choose_teams(p: &Problem, o: Teams) -> Option<Self> {
        // Twelve strips of a block leave two teams of as many warps; more blocks lie beside each other.
        let multiprocessors = u64::from(p.arch.multiprocessors);
        let blocks = p.strips().div_ceil(multiprocessors * 12);
        // Of narrow and long products two blocks read half of x each from the L2 cache; of narrower ones each warp
        // has two strips then.
        let int8 = p.activations.is_int8();
        let halves = p.is_narrow() && (int8 || p.k_blocks() >= 40 || p.strips() <= multiprocessors);
        let splits = if halves { 2 } else { 1 };
        // Between two launches lies one that quantizes, which may leave no room for a block of the second beside
        // the first; it would lie beside another of its own.
        let room = o.room.or(int8.then_some(1));
        let (splits, blocks) = (o.splits.or(Some(splits)), o.blocks.or(Some(blocks)));
        Self::teams_with(p, Teams { blocks, splits, room, ..o })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Activations, Arch};
    use super::*;

    const KINDS: [Activations; 2] = [Activations::F16, Activations::Int8 { per_row: true }];

    fn launch(activations: Activations, m: usize, n: usize, k: usize, o: Teams) -> Option<Small> {
        let arch = Arch { capability: (9, 0), multiprocessors: 132, shared_bytes: 232_448 };
        Small::teams_with(&Problem { arch, m, n, k, activations, segment: 128, aligned: true }, o)
    }

    #[test]
    fn the_next_launch_finds_room() {
        for (n, k) in [(4096, 4096), (5120, 5120), (4096, 14336), (14336, 4096), (8192, 8192), (28672, 8192)]
        {
            for (m, activations) in [9, 16].into_iter().flat_map(|m| KINDS.map(|kind| (m, kind))) {
                for splits in [1, 2] {
                    let o = Teams { splits: Some(splits), ..Teams::default() };
                    let Some(c) = launch(activations, m, n, k, o) else {
                        assert!((n as u64 / 16).div_ceil(132 / splits) > 24, "{n} {k} {m} {splits}");
                        continue;
                    };
                    assert_eq!((c.options.room, c.shared_bytes), (2, 115_184), "{n} {k} {m} {splits}");
                }
            }
        }
    }

    /// What the kernel counts, for every option.
    #[test]
    fn memory_holds_all_parts() {
        let all = |most| (1..=most).map(Some).chain([None]);
        for (n, k) in [(64, 128), (1000, 1288), (2112, 8192), (5120, 5120), (28672, 8192), (128_256, 4096)] {
            for (m, kind) in [1, 9, 16, 17, 32].into_iter().flat_map(|m| KINDS.map(|kind| (m, kind))) {
                for (splits, x_stages) in all(5).flat_map(|s| all(6).map(move |x| (s, x))) {
                    for blocks in [1, 2, 8] {
                        let o = Teams { splits, x_stages, blocks: Some(blocks), ..Teams::default() };
                        let Some(c) = launch(kind, m, n, k, o) else { continue };
                        let (strips, x_stages) = (u64::from(c.strips), u64::from(c.x_stages));
                        let rows = u64::from(c.rows);
                        let (stage, words) =
                            if kind.is_int8() { (rows * 128, 16 + rows * 4) } else { (rows * 256, 16) };
                        let (warps, stages) = (u64::from(c.warps), u64::from(c.stages));
                        let own = own(rows);
                        let rings = warps * stages * own * 1568 + (warps * stages * 8).next_multiple_of(16);
                        let items = (strips * (m as u64).div_ceil(8)).next_multiple_of(u64::from(c.splits));
                        let sums = if c.splits > 1 { items * 512 } else { 0 };
                        assert!(
                            x_stages * (stage + words) + rings + sums <= u64::from(c.shared_bytes),
                            "{c:?}"
                        );
                        assert!(
                            stage.is_multiple_of(1024)
                                && rings.is_multiple_of(16)
                                && words.is_multiple_of(16)
                        );
                        for strips in [strips, strips - 1].into_iter().filter(|&strips| strips > 0) {
                            let members = strips.div_ceil(own);
                            let teams = (warps / members).min(x_stages / 2);
                            assert!(members <= warps && warps <= 12 && teams > 0, "{c:?}");
                            assert!(teams * strips * rows * 64 <= x_stages * stage + rings, "{c:?}");
                        }
                    }
                }
            }
        }
    }
}
