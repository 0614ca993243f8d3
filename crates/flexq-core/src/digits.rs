//! Activations of A16 as whole numbers, so that few rows are multiplied as codes are.
//!
//! # The arithmetic
//! The 128 columns of a group of a row share a unit: the power of two of which the largest magnitude is
//! at least 2^29 and less than 2^30. Every number is rounded to a whole multiple of it, half to even, and
//! written with four digits to the base 256, from -128 to 127. Digits of one place are a row of codes:
//! they are multiplied with the weight's exactly, scaled by unit and place, and summed over the columns in
//! single precision, as [`matmul`](crate::matmul) says. The four sums of a row are added at the end, the
//! largest place first.
//!
//! So a number is off by half a unit at most, 2^-30 of the largest in its group, and not at all unless it is
//! smaller than 2^-19 (f16) or 2^-22 (bf16) of that. Units are at least 2^-100.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::activations::{offset_of, write_blocks};
use crate::arch::{ACTIVATION_GROUP, DIGITS, Digits, Kernels, LANES, Layout, QuantizedRows};
use crate::rows::FloatRows;
use crate::threads::Threads;

/// Codes of 128 columns of rows side by side, and their scales.
pub(crate) struct Lines {
    pub codes: [[i8; ACTIVATION_GROUP]; LANES],
    pub scales: [f32; LANES],
}

/// Rows of activations whose digits are [`Lines`].
pub(crate) const ROWS: usize = LANES / DIGITS;

/// Writes the digits of `x` as codes and says whether all numbers are finite: others have no digits.
pub(crate) fn split(
    kernels: &Kernels,
    digits: &Digits,
    x: &FloatRows<'_>,
    segment: usize,
    threads: Threads,
    q: &mut QuantizedRows,
) -> bool {
    q.resize(kernels, x.rows() * DIGITS, x.columns(), segment);
    q.parts = DIGITS;
    let finite = AtomicBool::new(true);
    let lines = |row: usize, first: usize| {
        let mut lines = Lines { codes: [[0; ACTIVATION_GROUP]; LANES], scales: [0.0; LANES] };
        (digits.split)(x, row, first, &mut lines);
        if lines.scales.iter().any(|scale| scale.is_nan()) {
            finite.store(false, Ordering::Relaxed);
        }
        lines
    };
    match q.layout {
        Layout::Rows => {
            for first in (0..q.stride).step_by(ACTIVATION_GROUP) {
                for row in (0..x.rows()).step_by(ROWS) {
                    write_rows(&lines(row, first), row * DIGITS, first, q);
                }
            }
        }
        Layout::Blocks => write_blocks(q, threads, |block, first, out| {
            let lines = lines(block * ROWS, first);
            (digits.interleave)(lines.codes.as_flattened(), out.codes);
            out.scales.copy_from_slice(&lines.scales);
            for (s, offsets) in out.offsets.chunks_exact_mut(LANES).enumerate() {
                for (offset, codes) in offsets.iter_mut().zip(&lines.codes) {
                    *offset = offset_of(&codes[s * segment..][..segment]);
                }
            }
        }),
    }
    finite.into_inner()
}

/// Columns `first ..` of rows `row ..`.
fn write_rows(lines: &Lines, row: usize, first: usize, q: &mut QuantizedRows) {
    let (groups, segments) = (q.stride / ACTIVATION_GROUP, q.stride / q.segment);
    for (row, (codes, &scale)) in (row..q.rows).zip(lines.codes.iter().zip(&lines.scales)) {
        q.codes[row * q.stride + first..][..ACTIVATION_GROUP].copy_from_slice(codes);
        q.scales[row * groups + first / ACTIVATION_GROUP] = scale;
        let offsets = &mut q.offsets[row * segments + first / q.segment..];
        for (offset, codes) in offsets.iter_mut().zip(codes.chunks_exact(q.segment)) {
            *offset = offset_of(codes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ACTIVATION_GROUP, LANES, Lines, ROWS};
    use crate::arch::{DIGITS, Isa};
    use crate::backend::Cpu;
    use crate::dtype::FloatType;
    use crate::rows::FloatRows;

    /// The digits of rows of 130 columns, columns 0 .. 128 and 128 .. 130, of every set of kernels with any.
    fn lines_of(rows: &[[f32; 130]]) -> Vec<[Lines; 2]> {
        let bytes: Vec<u8> = rows.as_flattened().iter().flat_map(|x| x.to_le_bytes()).collect();
        let x = FloatRows::new(&bytes, FloatType::F32, rows.len(), 130).expect("sizes fit");
        let all = Isa::ALL.into_iter().filter_map(Cpu::with_isa);
        let all = all.filter_map(|cpu| cpu.kernels().digits.as_ref()).map(|digits| {
            [0, ACTIVATION_GROUP].map(|first| {
                let mut lines = Lines { codes: [[0; ACTIVATION_GROUP]; LANES], scales: [0.0; LANES] };
                (digits.split)(&x, 0, first, &mut lines);
                lines
            })
        });
        all.collect()
    }

    #[test]
    fn digits_make_the_number_to_half_a_unit() {
        let least = f32::from_bits(1);
        // most have digits in every place; zeros and the least numbers have the least unit
        let numbers = [-1.0 - f32::EPSILON, -0.003, 1.0, 1.999_999_9, 2.0f32.powi(-29), 1e-12, 0.0, 0.123];
        for power in [f32::MAX / 2.0, 1.0, 1e-20, least, 0.0] {
            let row = |r: usize| std::array::from_fn(|i| numbers[(r + 1) * i % numbers.len()] * power);
            let rows: [[f32; 130]; ROWS - 1] = std::array::from_fn(row);
            for (lines, first) in lines_of(&rows).iter().flat_map(|[a, b]| [(a, 0), (b, ACTIVATION_GROUP)]) {
                let lines_of_rows = lines.codes.as_chunks::<DIGITS>().0.iter();
                let scales_of_rows = lines.scales.as_chunks::<DIGITS>().0;
                for ((row, codes), scales) in rows.iter().zip(lines_of_rows).zip(scales_of_rows) {
                    let row = &row[first..];
                    let largest = row.iter().take(128).fold(0.0f32, |largest, x| largest.max(x.abs()));
                    let unit = f64::from(scales[DIGITS - 1]);
                    assert!(unit <= (f64::from(largest) / 2.0f64.powi(29)).max(2.0f64.powi(-100)));
                    for i in 0..ACTIVATION_GROUP {
                        let digits = codes.iter().zip(scales);
                        let sum: f64 = digits.map(|(codes, &s)| f64::from(codes[i]) * f64::from(s)).sum();
                        let x = f64::from(row.get(i).copied().unwrap_or_default());
                        assert!((sum - x).abs() <= unit / 2.0, "column {i}: {sum:e} for {x:e}");
                    }
                }
                assert_eq!(
                    lines.codes[rows.len() * DIGITS..],
                    [[0; ACTIVATION_GROUP]; DIGITS],
                    "past the rows"
                );
            }
        }
    }

    #[test]
    fn what_is_not_finite_has_no_digits() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut rows = [[1.0; 130]; 2];
            rows[1][129] = bad;
            for [a, b] in lines_of(&rows) {
                assert!(a.scales.iter().chain(&b.scales[..DIGITS]).all(|scale| !scale.is_nan()));
                assert!(b.scales[DIGITS..2 * DIGITS].iter().all(|scale| scale.is_nan()), "{bad}");
            }
        }
    }
}
