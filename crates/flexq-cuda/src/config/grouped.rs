//! Launches of products by expert.

use super::{Family, Problem, Small};
use crate::order::TILE_ROWS;

/// A launch for few rows an expert: a small product for each expert that has rows, eight at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grouped {
    /// One item: an expert and up to [`Self::ROWS`] of its rows.
    pub small: Small,
    /// Items there can be at most.
    pub items: u32,
}

impl Grouped {
    /// Rows of an item.
    pub const ROWS: usize = 8;
    /// Rows an expert, on average, up to which items win: beyond it weights are read too often.
    const MOST_ROWS: usize = 8;

    /// The launch for `p.m` rows in all, if they are few.
    #[must_use]
    pub fn choose(p: &Problem, experts: usize) -> Option<Self> {
        if p.m > experts * Self::MOST_ROWS {
            return None;
        }
        // c rows need (c + 7) / 8 items at most, and no more experts than rows have any
        let active = p.m.min(experts);
        let items = (p.m + (Self::ROWS - 1) * active) / Self::ROWS;
        let mut share = Problem { m: p.m.min(Self::ROWS), ..*p };
        share.arch.multiprocessors = (p.arch.multiprocessors / active.max(1) as u32).max(1);
        let small = Small::choose(&share, Family::Staged)?;
        Some(Self { small, items: items as u32 })
    }

    /// Bytes of workspace for partial sums.
    #[must_use]
    pub fn partial_bytes(&self, p: &Problem) -> u64 {
        let n = p.n.next_multiple_of(TILE_ROWS) as u64;
        let splits = if self.small.has_partial() { u64::from(self.small.splits) } else { 0 };
        u64::from(self.items) * splits * Self::ROWS as u64 * n * 4
    }

    /// Counters in the workspace that the launch uses.
    #[must_use]
    pub fn counters(&self) -> u64 {
        u64::from(self.items) * u64::from(self.small.grid / self.small.splits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Activations, Arch};

    #[test]
    fn items_cover_every_way_to_share_out_the_rows() {
        let arch = Arch { capability: (9, 0), multiprocessors: 132, shared_bytes: 232_448 };
        let problem = |m| Problem {
            arch,
            m,
            n: 4096,
            k: 14336,
            activations: Activations::BF16,
            segment: 128,
            aligned: true,
        };
        for experts in [1, 3, 8] {
            for m in 1..=experts * 8 {
                let launch = Grouped::choose(&problem(m), experts).unwrap();
                // all experts but one have one row more than whole items
                let mut left = m;
                let mut items = 0;
                for _ in 1..experts {
                    let rows = left.min(1);
                    left -= rows;
                    items += rows;
                }
                items += left.div_ceil(Grouped::ROWS);
                assert!(launch.items as usize >= items, "{m} rows, {experts} experts");
                assert!(launch.small.shared_bytes <= arch.shared_bytes);
            }
        }
        assert_eq!(Grouped::choose(&problem(65), 8), None);
        let token = Grouped::choose(&problem(2), 8).unwrap();
        assert_eq!((token.items, token.small.grid), (2, 66));
    }
}
