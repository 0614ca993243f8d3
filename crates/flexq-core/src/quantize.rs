//! Floats to packed codes and scales.
//!
//! # The arithmetic
//! Scales of the type [`Pair`](crate::ScaleType::Pair) are found as [`pair`](crate::pair) says.
//! Otherwise, for every group of columns of every row, with all operations in IEEE single
//! precision and rounding half to even:
//!
//! 1. `high = max(0, max w)`, `low = min(0, min w)`.
//! 2. The scale `s`: for `absmax31`, `max(high, -low) / 31`. For `absmax32s` and `mse`,
//!    `m / -32` where `m = high` if `high >= -low`, else `low`: the element of largest
//!    magnitude goes to code -32.
//! 3. `S` is `s` rounded to the scale type. If `S` is infinite, that is
//!    [`Error::ScaleOverflow`]. If `S` is zero, the stored scale is +0 and all codes are 0.
//! 4. For `mse` only: the candidates are `s * c`, rounded to the scale type, for `c` in
//!    1, 0.99, 0.98, 0.97, 0.96, 0.94, 0.92, 0.9, 0.87, 0.84, 0.8, 0.75, 1.01, 1.02, 1.03,
//!    1.05 (each the nearest f32). `S` is the first candidate `C` with the least
//!    `e(C) * (r * r)`, where `r = C / S0` and `S0` is the first candidate. With
//!    `t = w * (1 / C)`, each `d = t - clamp(rne(t), -32, 31)`; `e` is the sum of `d * d`:
//!    element `i` of the group adds to lane `i mod 16` of 16 lanes that start at 0, in
//!    order; then lanes 8..16 are added to lanes 0..8, 4..8 to 0..4, 2..4 to 0..2, and 1
//!    to 0. No multiplication is fused with an addition. A candidate that rounds to zero
//!    or infinity has an undefined error and is never chosen.
//! 5. The code is `clamp(rne(w / f32(S)), -32, 31)`, stored as `code + 32`.
//!
//! The result depends on nothing else: not on threads, instruction set or input type
//! beyond the values it holds.

use std::sync::{Mutex, PoisonError};

use crate::arch::{Fault, Out, Scratch};
use crate::backend::Cpu;
use crate::error::{Error, Result};
use crate::layout;
use crate::qtensor::QTensor;
use crate::rows::FloatRows;
use crate::scheme::{Group, ScaleRule, ScaleType, Scheme};
use crate::threads::{Threads, for_each_with};

/// Bytes of source that a thread takes at a time: many, since what kernels ask for ahead of
/// need is lost at the end.
const CHUNK_BYTES: usize = 1 << 20;

/// Quantizes and packs rows on the calling thread.
///
/// `packed` receives `rows * ceil(6 K / 8)` bytes and `scales` one little-endian 16-bit
/// float per group, as the [module](self) specifies.
///
/// # Errors
/// [`Error::NonFinite`] at the first NaN or infinity, [`Error::ScaleOverflow`] at the
/// first scale out of range (rows and columns count from `src`), [`Error::Length`] when a
/// buffer has the wrong size.
pub fn quantize_rows(
    src: &FloatRows<'_>,
    scheme: &Scheme,
    packed: &mut [u8],
    scales: &mut [u8],
) -> Result<()> {
    Cpu::default().quantize_rows(src, scheme, packed, scales, Threads::ONE)
}

/// Quantizes a matrix `[N, K]`, or a stack `[E, N, K]` whose rows `src` lists.
///
/// # Errors
/// As [`quantize_rows`]; [`Error::Length`] also when `shape` does not describe `src`.
pub fn quantize(src: &FloatRows<'_>, shape: &[usize], scheme: &Scheme, threads: Threads) -> Result<QTensor> {
    Cpu::default().quantize(src, shape, scheme, threads)
}

/// Packs signed codes in -32..=31, `[rows, columns]`, into the canonical 6-bit stream.
///
/// # Errors
/// [`Error::Length`] when a buffer has the wrong size, [`Error::Unknown`] when a code is
/// out of range.
pub fn pack_codes(codes: &[i8], rows: usize, columns: usize, packed: &mut [u8]) -> Result<()> {
    Cpu::default().pack_codes(codes, rows, columns, packed)
}

impl Cpu {
    /// [`pack_codes`] with these kernels.
    ///
    /// # Errors
    /// As [`pack_codes`].
    pub fn pack_codes(self, codes: &[i8], rows: usize, columns: usize, packed: &mut [u8]) -> Result<()> {
        check_length("codes", rows.checked_mul(columns), rows, columns, codes.len())?;
        let row_bytes = layout::packed_row_bytes(columns);
        check_length("bytes of packed codes", rows.checked_mul(row_bytes), rows, columns, packed.len())?;
        if let Some(code) = codes.iter().find(|code| !(-32..=31).contains(*code)) {
            return Err(Error::unknown("6-bit code", code, "-32 to 31"));
        }
        if columns > 0 {
            let pack_row = self.kernels().pack_row;
            for (codes, packed) in codes.chunks(columns).zip(packed.chunks_mut(row_bytes)) {
                pack_row(codes, packed);
            }
        }
        Ok(())
    }

    /// [`quantize_rows`] on several threads.
    ///
    /// # Errors
    /// As [`quantize_rows`].
    pub fn quantize_rows(
        self,
        src: &FloatRows<'_>,
        scheme: &Scheme,
        packed: &mut [u8],
        scales: &mut [u8],
        threads: Threads,
    ) -> Result<()> {
        if scheme.rule == ScaleRule::Imported {
            return Err(Error::unknown("scale rule to quantize by", scheme.rule, "absmax31, absmax32s, mse"));
        }
        scheme.check()?;
        let (rows, columns) = (src.rows(), src.columns());
        let (packed_bytes, scale_bytes) = layout::sizes(rows, columns, scheme.group)?;
        check_length("bytes of packed codes", Some(packed_bytes), rows, columns, packed.len())?;
        check_length("bytes of scales", Some(scale_bytes), rows, columns, scales.len())?;
        if rows == 0 || columns == 0 {
            return Ok(());
        }
        let quantize_row = self.kernels().quantize_row;
        let (dtype, row_bytes) = (src.dtype(), src.row_bytes());
        let (packed_row, scales_row) = (packed_bytes / rows, scale_bytes / rows);
        let height = (CHUNK_BYTES / row_bytes).max(1);
        let first_error = Mutex::new(None::<(usize, Error)>);
        let chunks = src
            .bytes()
            .chunks(height * row_bytes)
            .zip(packed.chunks_mut(height * packed_row))
            .zip(scales.chunks_mut(height * scales_row))
            .enumerate();
        let out = Out::of(packed_bytes);
        // rows of whole groups lie end to end, like one: kernels are faster the longer a row is
        let joined = matches!(scheme.group, Group::Columns(width) if columns.is_multiple_of(width))
            && scheme.scale_type != ScaleType::Pair;
        for_each_with(threads, chunks, |scratch: &mut Scratch, (chunk, ((src, packed), scales))| {
            // an error is found again below, with its row
            if joined && quantize_row(scheme, dtype, src, packed, scales, out, scratch).is_ok() {
                return out.finish();
            }
            let rows = src
                .chunks_exact(row_bytes)
                .zip(packed.chunks_exact_mut(packed_row))
                .zip(scales.chunks_exact_mut(scales_row));
            for (i, ((src, packed), scales)) in rows.enumerate() {
                if let Err(fault) = quantize_row(scheme, dtype, src, packed, scales, out, scratch) {
                    let row = chunk * height + i;
                    let mut first = first_error.lock().unwrap_or_else(PoisonError::into_inner);
                    if first.as_ref().is_none_or(|(first, _)| row < *first) {
                        *first = Some((row, error_at(fault, row, scheme)));
                    }
                    return;
                }
            }
            out.finish();
        });
        match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    /// [`quantize`] with these kernels.
    ///
    /// # Errors
    /// As [`quantize`].
    pub fn quantize(
        self,
        src: &FloatRows<'_>,
        shape: &[usize],
        scheme: &Scheme,
        threads: Threads,
    ) -> Result<QTensor> {
        let columns = shape.last().copied().unwrap_or(0);
        if columns != src.columns() {
            return Err(Error::length("last dimension of the shape", src.columns(), columns));
        }
        let (packed_bytes, scale_bytes) = layout::sizes(src.rows(), columns, scheme.group)?;
        let (mut packed, mut scales) = (vec![0; packed_bytes], vec![0; scale_bytes]);
        self.quantize_rows(src, scheme, &mut packed, &mut scales, threads)?;
        QTensor::from_parts(shape.to_vec(), src.dtype(), *scheme, packed.into(), scales.into())
    }
}

fn error_at(fault: Fault, row: usize, scheme: &Scheme) -> Error {
    let tensor = String::new();
    match fault {
        Fault::NonFinite { column, value } => Error::NonFinite { tensor, row, column, value },
        Fault::Overflow { group, scale } => {
            Error::ScaleOverflow { tensor, row, group, scale, scale_type: scheme.scale_type }
        }
    }
}

/// `expected` is `None` when it overflowed.
pub(crate) fn check_length(
    what: &str,
    expected: Option<usize>,
    rows: usize,
    columns: usize,
    found: usize,
) -> Result<()> {
    match expected {
        None => Err(Error::TooLarge { rows, columns }),
        Some(expected) if expected != found => Err(Error::length(what, expected, found)),
        Some(_) => Ok(()),
    }
}
