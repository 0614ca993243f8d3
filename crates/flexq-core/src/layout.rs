//! Sizes of the canonical layout: where the codes and scales of a row lie.
//!
//! A row is one little-endian bit stream: code `i`, stored as `q + 32`, occupies
//! bits `6 i .. 6 i + 6`; unused bits of the last byte are zero. Four codes make
//! three bytes.

use crate::error::{Error, Result};
use crate::scheme::{BITS, Group};

/// Bytes of one packed row of `k` codes: `ceil(6 k / 8)`.
#[must_use]
pub const fn packed_row_bytes(k: usize) -> usize {
    // k / 4 * 3 never overflows where k itself counts bytes in memory
    k / 4 * 3 + (k % 4 * BITS).div_ceil(8)
}

/// Bytes of the packed codes and of the 16-bit scales of `rows` rows of `k` columns.
///
/// # Errors
/// [`Error::TooLarge`] when a size does not fit the address space.
pub fn sizes(rows: usize, k: usize, group: Group) -> Result<(usize, usize)> {
    let too_large = || Error::TooLarge { rows, columns: k };
    let packed = packed_row_bytes(k).checked_mul(rows).ok_or_else(too_large)?;
    let scales = (group.count(k) * 2).checked_mul(rows).ok_or_else(too_large)?;
    Ok((packed, scales))
}

#[cfg(test)]
mod tests {
    use super::packed_row_bytes;

    #[test]
    fn a_row_is_six_bits_a_code_rounded_up() {
        for k in 0..1000 {
            assert_eq!(packed_row_bytes(k), (k * 6).div_ceil(8));
        }
    }
}
