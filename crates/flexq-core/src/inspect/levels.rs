//! Which values occur among the elements of a stored tensor.

use super::weight::{Storage, Weight};
use crate::error::Result;
use crate::format::File;
use crate::layout::packed_row_bytes;

/// Bytes looked at between two releases of mapped memory.
const CHUNK: usize = 4 << 20;

/// The values that occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// How many different ones.
    pub count: u32,
    /// Least and greatest signed code, for codes.
    pub range: Option<(i32, i32)>,
}

impl Levels {
    /// Bits that tell so many levels apart.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.count.max(1).next_power_of_two().trailing_zeros()
    }

    /// Bits that a signed code of this range needs; `None` where there are no codes.
    #[must_use]
    pub fn code_bits(self) -> Option<u32> {
        let (low, high) = self.range?;
        (1..=8).find(|&bits| low >= -(1 << (bits - 1)) && high < 1 << (bits - 1))
    }
}

/// Counts the levels of `weight`; `None` for types that have too many to matter.
pub(super) fn count(file: &File, weight: &Weight) -> Result<Option<Levels>> {
    let columns = weight.shape.last().copied().unwrap_or(1);
    let mut seen = Seen::new(match weight.storage {
        Storage::Plain(dtype) if dtype.bits() == 16 => 1 << 16,
        Storage::Plain(dtype) if dtype.bits() == 8 => 1 << 8,
        Storage::Plain(_) => return Ok(None),
        Storage::Int8 => 1 << 8,
        Storage::Flexq => 1 << crate::scheme::BITS,
        Storage::Dense { bits } | Storage::Words { bits } => 1 << bits,
    });
    let bytes = file.bytes(&weight.stored)?;
    let rows = weight.shape.iter().rev().skip(1).product::<usize>().max(1);
    let row_bytes = (bytes.len() / rows).max(1);
    let step = match weight.storage {
        Storage::Plain(_) | Storage::Int8 => CHUNK,
        _ => (CHUNK / row_bytes).max(1) * row_bytes,
    };
    for (at, chunk) in bytes.chunks(step).enumerate() {
        match weight.storage {
            Storage::Plain(dtype) if dtype.bits() == 16 => {
                chunk.as_chunks::<2>().0.iter().for_each(|&value| seen.see(u16::from_le_bytes(value).into()));
            }
            Storage::Plain(_) => chunk.iter().for_each(|&value| seen.see(value.into())),
            Storage::Int8 => chunk.iter().for_each(|&code| seen.see((code ^ 0x80).into())),
            Storage::Flexq => {
                let used = packed_row_bytes(columns);
                for row in chunk.chunks_exact(used.max(1)) {
                    stream(row, columns, crate::scheme::BITS as u32, &mut seen);
                }
            }
            Storage::Dense { bits } => {
                chunk.chunks_exact(row_bytes).for_each(|row| stream(row, columns, bits, &mut seen));
            }
            Storage::Words { bits } => {
                chunk.chunks_exact(row_bytes).for_each(|row| words(row, columns, bits, &mut seen));
            }
        }
        file.release(&weight.stored, at * step..at * step + chunk.len());
    }
    Ok(Some(seen.levels(weight.storage)))
}

/// One little-endian stream of `bits` each.
fn stream(row: &[u8], columns: usize, bits: u32, seen: &mut Seen) {
    let (mut pool, mut held, mut left) = (0u32, 0, columns);
    for &byte in row {
        pool |= u32::from(byte) << held;
        held += 8;
        while held >= bits && left > 0 {
            seen.see((pool & ((1 << bits) - 1)) as usize);
            pool >>= bits;
            held -= bits;
            left -= 1;
        }
    }
}

/// As many codes as fit into each 32-bit word.
fn words(row: &[u8], columns: usize, bits: u32, seen: &mut Seen) {
    let per_word = (32 / bits) as usize;
    for (number, &word) in row.as_chunks::<4>().0.iter().enumerate() {
        let word = u32::from_le_bytes(word);
        for code in 0..per_word.min(columns.saturating_sub(number * per_word)) {
            seen.see((word >> (code as u32 * bits) & ((1 << bits) - 1)) as usize);
        }
    }
}

/// A set of small numbers.
struct Seen(Vec<bool>);

impl Seen {
    fn new(values: usize) -> Self {
        Self(vec![false; values])
    }

    fn see(&mut self, value: usize) {
        self.0[value] = true;
    }

    fn levels(&self, storage: Storage) -> Levels {
        let count = self.0.iter().filter(|&&seen| seen).count() as u32;
        // codes are stored with half their range added
        let middle = (self.0.len() / 2) as i32;
        let (low, high) = (self.0.iter().position(|&seen| seen), self.0.iter().rposition(|&seen| seen));
        let range = low.zip(high).filter(|_| storage.is_quantized());
        Levels { count, range: range.map(|(low, high)| (low as i32 - middle, high as i32 - middle)) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Levels, Seen, Storage, stream, words};

    fn levels(storage: Storage, see: impl FnOnce(&mut Seen)) -> Levels {
        let mut seen = Seen::new(64);
        see(&mut seen);
        seen.levels(storage)
    }

    #[test]
    fn a_stream_ends_with_its_columns() {
        // codes 0, 1, 31, 32 as 40 F0 81; the fifth would be the padding
        let dense = Storage::Dense { bits: 6 };
        let found = levels(dense, |seen| stream(&[0x40, 0xF0, 0x81, 0xFF], 4, 6, seen));
        assert_eq!(found, Levels { count: 4, range: Some((-32, 0)) });
        assert_eq!((found.bits(), found.code_bits()), (2, Some(6)));
    }

    #[test]
    fn words_hold_five_codes_and_end_with_the_columns() {
        let word = 1 | 2 << 6 | 3 << 12 | 4 << 18 | 5 << 24;
        let row: Vec<u8> = [word, 0x3c_u32 | 0x3f << 6].iter().flat_map(|word| word.to_le_bytes()).collect();
        let found = levels(Storage::Words { bits: 6 }, |seen| words(&row, 6, 6, seen));
        assert_eq!(found, Levels { count: 6, range: Some((-31, 28)) });
    }

    #[test]
    fn bits_follow_from_the_range() {
        let bits = |range| Levels { count: 2, range: Some(range) }.code_bits();
        assert_eq!([bits((-32, 31)), bits((-33, 0)), bits((0, 32)), bits((-8, 7))], [6, 7, 7, 4].map(Some));
    }
}
