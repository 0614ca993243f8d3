//! An output matrix cut into column stripes that threads fill independently.

use std::marker::PhantomData;
use std::ops::Range;
use std::slice;

use super::MAX_STRIPE;
use crate::dtype::FloatType;
use crate::rows::FloatRowsMut;

/// Columns `columns()` of every row of a `[M, N]` matrix.
#[derive(Debug)]
pub(crate) struct Stripe<'a> {
    base: *mut u8,
    dtype: FloatType,
    rows: usize,
    row_columns: usize,
    columns: Range<usize>,
    matrix: PhantomData<&'a mut [u8]>,
}

// SAFETY: a stripe is an exclusive borrow of the bytes it can reach, as `&mut [u8]` is: `Stripes`
// hands out every column once.
unsafe impl Send for Stripe<'_> {}

impl Stripe<'_> {
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The columns of the output, which are rows of the weight.
    pub fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    pub fn dtype(&self) -> FloatType {
        self.dtype
    }

    /// The stripe's elements of row `m`.
    pub fn row_mut(&mut self, m: usize) -> &mut [u8] {
        assert!(m < self.rows, "row {m} of {}", self.rows);
        let size = self.dtype.size();
        let start = (m * self.row_columns + self.columns.start) * size;
        // SAFETY: `m` is below the number of rows and the columns lie in the row, so the range lies
        // in the matrix borrowed for 'a; no other stripe reaches it, and `&mut self` guards this one.
        unsafe { slice::from_raw_parts_mut(self.base.add(start), self.columns.len() * size) }
    }
}

/// Columns that stripes are multiples of, the last excepted: what kernels work on.
const STEP: usize = 32;

/// Disjoint stripes of a matrix, from left to right: wide ones first, which cost least, and
/// narrow ones at the end, so that threads end together, whenever they began.
#[derive(Debug)]
pub(crate) struct Stripes<'a> {
    rest: Stripe<'a>,
    threads: usize,
}

// SAFETY: as for `Stripe`.
unsafe impl Send for Stripes<'_> {}

impl<'a> Stripes<'a> {
    /// Stripes for so many threads.
    pub fn new(matrix: &'a mut FloatRowsMut<'_>, threads: usize) -> Self {
        let (dtype, rows, row_columns) = (matrix.dtype(), matrix.rows(), matrix.columns());
        let base = matrix.bytes_mut().as_mut_ptr();
        let rest = Stripe { base, dtype, rows, row_columns, columns: 0..row_columns, matrix: PhantomData };
        Self { rest, threads }
    }

    /// Columns of the next stripe, when so many are left.
    fn width(&self, rest: usize) -> usize {
        (rest / (2 * self.threads)).next_multiple_of(STEP).clamp(STEP, MAX_STRIPE)
    }
}

impl<'a> Iterator for Stripes<'a> {
    type Item = Stripe<'a>;

    fn next(&mut self) -> Option<Stripe<'a>> {
        let Range { start, end } = self.rest.columns;
        if start == end {
            return None;
        }
        let middle = end.min(start + self.width(end - start));
        self.rest.columns.start = middle;
        Some(Stripe { columns: start..middle, ..self.rest })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl ExactSizeIterator for Stripes<'_> {
    fn len(&self) -> usize {
        let (mut rest, mut count) = (self.rest.columns.len(), 0);
        while rest > 0 {
            rest = rest.saturating_sub(self.width(rest));
            count += 1;
        }
        count
    }
}
