//! What both products on tiles share: how many weight rows are unpacked together, and when memory
//! is asked for.

use std::ops::Range;

use super::super::avx512::BLOCK;
use crate::arch::LANES;

/// Groups of sixteen weight rows in a panel. One with a single block of activations, which are few
/// bytes to pass again: the processor's own prefetcher follows sixteen streams, not 32.
pub const GROUPS: usize = 2;
/// Weight rows in a panel.
pub const ROWS: usize = GROUPS * LANES;
/// Bytes of a tile.
pub const TILE: usize = 1024;
/// How far ahead of the loads memory is asked for, in bytes of each row.
const AHEAD: usize = 512;
/// Blocks of activations whose sums stay in L1 with a panel.
pub const TOGETHER: usize = 8;
/// Sums on their way from tiles to vectors: a tile's latency and the stores' pass meanwhile.
pub const DELAY: usize = 2;

/// How far ahead memory is asked for while block `d` of `G` groups of rows is unpacked: in the same
/// row or, past the columns of this pass, in the row that comes next in its place.
#[inline]
pub fn ahead<const G: usize>(packed: &[&[u8]; ROWS], depth: &Range<usize>, d: usize) -> usize {
    if d * BLOCK + AHEAD < depth.end * BLOCK {
        return AHEAD;
    }
    AHEAD + G * LANES * packed[0].len() - depth.len() * BLOCK
}
