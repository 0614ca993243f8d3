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
