//! Borrowed matrices of floating-point rows, as raw little-endian bytes.
//!
//! Bytes rather than typed slices: a memory-mapped checkpoint promises no
//! alignment, and kernels load unaligned anyway.

use crate::dtype::FloatType;
use crate::error::{Error, Result};

/// A dense row-major `[rows, columns]` matrix that is read.
#[derive(Clone, Copy, Debug)]
pub struct FloatRows<'a> {
    bytes: &'a [u8],
    dtype: FloatType,
    rows: usize,
    columns: usize,
}

/// A dense row-major `[rows, columns]` matrix that is written.
#[derive(Debug)]
pub struct FloatRowsMut<'a> {
    bytes: &'a mut [u8],
    dtype: FloatType,
    rows: usize,
    columns: usize,
}

fn check(bytes: usize, dtype: FloatType, rows: usize, columns: usize) -> Result<()> {
    let expected = rows
        .checked_mul(columns)
        .and_then(|n| n.checked_mul(dtype.size()))
        .ok_or(Error::TooLarge { rows, columns })?;
    if bytes == expected { Ok(()) } else { Err(Error::length("bytes of a matrix", expected, bytes)) }
}

impl<'a> FloatRows<'a> {
    /// A view of `bytes` as `[rows, columns]` elements of `dtype`.
    ///
    /// # Errors
    /// [`Error::Length`] unless `bytes` holds exactly that many elements.
    pub fn new(bytes: &'a [u8], dtype: FloatType, rows: usize, columns: usize) -> Result<Self> {
        check(bytes.len(), dtype, rows, columns)?;
        Ok(Self { bytes, dtype, rows, columns })
    }

    /// Row-major little-endian elements.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Element type.
    #[must_use]
    pub fn dtype(&self) -> FloatType {
        self.dtype
    }

    /// Elements of row `m`.
    pub(crate) fn row(&self, m: usize) -> &'a [u8] {
        let bytes = self.row_bytes();
        &self.bytes[m * bytes..][..bytes]
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes of one row.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.columns * self.dtype.size()
    }
}

impl<'a> FloatRowsMut<'a> {
    /// A view of `bytes` as `[rows, columns]` elements of `dtype`.
    ///
    /// # Errors
    /// [`Error::Length`] unless `bytes` holds exactly that many elements.
    pub fn new(bytes: &'a mut [u8], dtype: FloatType, rows: usize, columns: usize) -> Result<Self> {
        check(bytes.len(), dtype, rows, columns)?;
        Ok(Self { bytes, dtype, rows, columns })
    }

    /// Row-major little-endian elements.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
    }

    /// Element type.
    #[must_use]
    pub fn dtype(&self) -> FloatType {
        self.dtype
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }
}
