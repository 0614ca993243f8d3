//! Two scales in one 16-bit word: finer groups at the same size.
//!
//! With [`ScaleType::Pair`](crate::ScaleType::Pair) the word of a group of 32, 64 or 128
//! columns holds one scale for its first half and one for the rest. Weights in groups of 32
//! take 6.5 bits all the same, and in groups of 128 6.125.
//!
//! # The word
//! | bits | content |
//! | --- | --- |
//! | 15 | sign of the first scale |
//! | 14 to 6 | magnitude `m` of the first scale: bits 13 to 5 of a half-precision float |
//! | 5 | sign of the second scale |
//! | 4 to 0 | `o`, the second magnitude relative to the first |
//!
//! The first scale is the half-precision float of magnitude bits `m << 5`, so it has five
//! mantissa bits and stays below 2. The second has the magnitude bits `m << 5` plus
//! `(o - 16) << 6`, or zero if that is negative: from about half of the first scale to about
//! twice it, in sixteenths of an octave. No word means NaN or infinity.
//!
//! # How a word is found
//! 1. `c0` and `c1` are the scales of the two halves before rounding, by the scale rule
//!    (step 2 of [`quantize`](crate::quantize)); an empty half has 0. With `h` the magnitude
//!    bits of such a scale in half precision, its place is `(h + 16) >> 5`. A place above 511 is
//!    [`Error::ScaleOverflow`](crate::Error::ScaleOverflow).
//! 2. `p0 = max(place(c0), place(c1) - 30)` and `p1 = max(place(c1), p0 - 32)`.
//! 3. The candidates are the places `(p0 + i, p1 + j)` with the first in 0..=511, the second
//!    at least 0, and their difference (second minus first) even and in -32..=30. For the rules
//!    `absmax31` and `absmax32s`, `i` is 0 and `j` 0 or 1, and the first candidate is taken. For
//!    `mse`, `i` and `j` run through 0, 1, .. 9, -1, -2, and the candidate of least error is
//!    taken, the first of equals, with `i` in the outer loop.
//! 4. The error of a candidate is the sum of those of its halves; a half with the scale `C`
//!    has `e(C) * (C * C)`, or where `C` is zero the sum of its squared weights, each summed in
//!    lanes (step 4 of [`quantize`](crate::quantize)).
//! 5. The signs are those of `c0` and `c1`, positive for zeros. Codes follow from the two scales
//!    as from any others.

/// The greatest place of a first scale, `m`.
pub(crate) const MAX_PLACE: i32 = 511;
/// The second place less the first, at least and at most; it is even.
pub(crate) const REACH: std::ops::RangeInclusive<i32> = -32..=30;

const SIGN: u16 = 0x8000;

/// The half-precision bits of scale `half` (0 or 1) of a word.
#[inline]
#[must_use]
pub const fn unpack(word: u16, half: usize) -> u16 {
    let first = (word & 0x7fc0) >> 1;
    if half == 0 {
        return word & SIGN | first;
    }
    let second = first.cast_signed() + ((word & 31).cast_signed() - 16) * 64;
    // a branch would cost more: the mask is zero for negative numbers
    (word << 10) & SIGN | (second & !(second >> 15)).cast_unsigned()
}

/// The word of two scales: their places, in [`REACH`] of each other, and whether they are negative.
pub(crate) const fn pack(places: [i32; 2], negative: [bool; 2]) -> u16 {
    let offset = (places[1] - places[0]) / 2 + 16;
    let word = places[0] << 6 | offset | (negative[0] as i32) << 15 | (negative[1] as i32) << 5;
    (word & 0xffff) as u16
}

/// The place of a scale that is not negative, from its half-precision bits.
pub(crate) const fn place(bits: u16) -> i32 {
    (bits as i32 + 16) >> 5
}

/// The half-precision bits of a place.
pub(crate) const fn bits(place: i32) -> u16 {
    (place << 5) as u16
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::{MAX_PLACE, REACH, bits, pack, unpack};

    #[test]
    fn words_give_back_what_they_were_made_of() {
        for first in 0..=MAX_PLACE {
            for step in REACH.step_by(2).filter(|step| first + step >= 0) {
                for signs in [[false, false], [true, false], [false, true], [true, true]] {
                    let word = pack([first, first + step], signs);
                    for (half, place) in [first, first + step].into_iter().enumerate() {
                        let sign = u16::from(signs[half]) << 15;
                        assert_eq!(unpack(word, half), bits(place) | sign, "{word:04x} {half}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_word_holds_two_numbers() {
        for word in 0..=u16::MAX {
            let [first, second] = [0, 1].map(|half| f16::from_bits(unpack(word, half)).to_f32());
            assert!(first.abs() < 2.0 && second.abs() < 4.0, "{word:04x}: {first} {second}");
        }
    }
}
