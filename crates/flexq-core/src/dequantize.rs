//! Packed codes and scales back to floats: `f32(code) * f32(scale)`, rounded to the
//! output type (half to even).

use std::ops::Range;

use crate::arch::{Out, Scratch, Weights};
use crate::backend::Cpu;
use crate::error::{Error, Result};
use crate::layout;
use crate::qtensor::QTensor;
use crate::quantize::check_length;
use crate::rows::FloatRowsMut;
use crate::scheme::Scheme;
use crate::threads::{Threads, for_each, for_each_with};

/// Bytes of output that a thread writes at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Dequantizes all rows of `w` into `out`, `[rows, K]`.
///
/// # Errors
/// [`Error::Length`] when `out` has another shape.
pub fn dequantize(w: &QTensor, out: &mut FloatRowsMut<'_>, threads: Threads) -> Result<()> {
    Cpu::default().dequantize_rows(w, 0..w.rows(), out, threads)
}

/// Dequantizes the rows `rows` of `w` into `out`, `[rows.len(), K]`, on the calling thread.
///
/// # Errors
/// [`Error::Length`] when `rows` does not lie in `w` or `out` has another shape.
pub fn dequantize_rows(w: &QTensor, rows: Range<usize>, out: &mut FloatRowsMut<'_>) -> Result<()> {
    Cpu::default().dequantize_rows(w, rows, out, Threads::ONE)
}

/// Dequantizes the rows that `indices` lists into `out`, `[indices.len(), K]`: an
/// embedding look-up.
///
/// # Errors
/// [`Error::Length`] when an index is not a row of `w` or `out` has another shape.
pub fn gather(w: &QTensor, indices: &[usize], out: &mut FloatRowsMut<'_>, threads: Threads) -> Result<()> {
    Cpu::default().gather(w, indices, out, threads)
}

/// The signed codes of `w`, `[rows, K]`, in -32..=31.
///
/// # Errors
/// [`Error::Length`] when `codes` has the wrong size.
pub fn unpack_codes(w: &QTensor, codes: &mut [i8], threads: Threads) -> Result<()> {
    Cpu::default().unpack_codes(w, codes, threads)
}

impl Cpu {
    /// [`dequantize_rows`] on several threads.
    ///
    /// # Errors
    /// As [`dequantize_rows`].
    pub fn dequantize_rows(
        self,
        w: &QTensor,
        rows: Range<usize>,
        out: &mut FloatRowsMut<'_>,
        threads: Threads,
    ) -> Result<()> {
        if rows.start > rows.end || rows.end > w.rows() {
            return Err(Error::length("end of a range of rows, at most", w.rows(), rows.end));
        }
        let start = rows.start;
        self.dequantize_where(&w.scheme(), Weights::new(w), rows.len(), |i| start + i, out, threads)
    }

    /// [`gather`] with these kernels.
    ///
    /// # Errors
    /// As [`gather`].
    pub fn gather(
        self,
        w: &QTensor,
        indices: &[usize],
        out: &mut FloatRowsMut<'_>,
        threads: Threads,
    ) -> Result<()> {
        if let Some(&index) = indices.iter().find(|&&index| index >= w.rows()) {
            return Err(Error::no_row(index, w.rows()));
        }
        self.dequantize_where(&w.scheme(), Weights::new(w), indices.len(), |i| indices[i], out, threads)
    }

    /// [`unpack_codes`] with these kernels.
    ///
    /// # Errors
    /// As [`unpack_codes`].
    pub fn unpack_codes(self, w: &QTensor, codes: &mut [i8], threads: Threads) -> Result<()> {
        let (rows, columns) = (w.rows(), w.columns());
        check_length("codes", rows.checked_mul(columns), rows, columns, codes.len())?;
        if codes.is_empty() {
            return Ok(());
        }
        let unpack_row = self.kernels().unpack_row;
        let row_bytes = layout::packed_row_bytes(columns);
        let height = (CHUNK_BYTES / columns).max(1);
        let chunks = w.packed().chunks(height * row_bytes).zip(codes.chunks_mut(height * columns));
        for_each(threads, chunks, |(packed, codes)| {
            for (packed, codes) in packed.chunks_exact(row_bytes).zip(codes.chunks_exact_mut(columns)) {
                unpack_row(packed, codes);
            }
        });
        Ok(())
    }

    /// Dequantizes as many rows as `out` has, on the calling thread, from bytes that belong to
    /// no tensor.
    ///
    /// # Errors
    /// [`Error::Length`] when a buffer has the wrong size.
    pub(crate) fn dequantize_bytes(
        self,
        scheme: &Scheme,
        packed: &[u8],
        scales: &[u8],
        out: &mut FloatRowsMut<'_>,
    ) -> Result<()> {
        let (rows, columns) = (out.rows(), out.columns());
        let (packed_bytes, scale_bytes) = layout::sizes(rows, columns, scheme.group)?;
        check_length("bytes of packed codes", Some(packed_bytes), rows, columns, packed.len())?;
        check_length("bytes of scales", Some(scale_bytes), rows, columns, scales.len())?;
        let w = Weights { packed, scales, columns, group: scheme.group, scale_type: scheme.scale_type };
        self.dequantize_where(scheme, w, rows, |i| i, out, Threads::ONE)
    }

    /// Row `i` of `out` is row `row(i)` of `w`, which must exist.
    fn dequantize_where(
        self,
        scheme: &Scheme,
        w: Weights<'_>,
        rows: usize,
        row: impl Fn(usize) -> usize + Sync,
        out: &mut FloatRowsMut<'_>,
        threads: Threads,
    ) -> Result<()> {
        if out.rows() != rows {
            return Err(Error::length("rows of the output", rows, out.rows()));
        }
        if out.columns() != w.columns {
            return Err(Error::length("columns of the output", w.columns, out.columns()));
        }
        if rows == 0 || w.columns == 0 {
            return Ok(());
        }
        let dequantize_row = self.kernels().dequantize_row;
        let dtype = out.dtype();
        let row_bytes = w.columns * dtype.size();
        let height = (CHUNK_BYTES / row_bytes).max(1);
        let chunks = out.bytes_mut().chunks_mut(height * row_bytes).enumerate();
        let way = Out::of(rows * row_bytes);
        for_each_with(threads, chunks, |scratch: &mut Scratch, (chunk, out)| {
            for (i, out) in out.chunks_exact_mut(row_bytes).enumerate() {
                let n = row(chunk * height + i);
                let (packed, scales) = (w.packed_row(n), w.scales_row(n));
                dequantize_row(scheme, packed, scales, dtype, out, way, scratch);
            }
            way.finish();
        });
        Ok(())
    }
}
