//! A quantized weight: packed codes, scales, and what they mean.

use std::ops::Range;

use crate::bytes::SharedBytes;
use crate::dtype::FloatType;
use crate::error::{Error, Result};
use crate::layout;
use crate::scheme::{Group, ScaleType, Scheme};

/// A 6-bit weight of shape `[N, K]`, or `[E, N, K]` for fused experts.
///
/// Holds the canonical bytes as they are in a file; cloning and slicing share them.
#[derive(Clone, Debug)]
pub struct QTensor {
    shape: Vec<usize>,
    origin: FloatType,
    scheme: Scheme,
    packed: SharedBytes,
    scales: SharedBytes,
}

impl QTensor {
    /// A tensor over existing canonical bytes.
    ///
    /// `packed` holds `rows * ceil(6 K / 8)` bytes and `scales` one 16-bit word of the
    /// scheme's scale type per group of every row, little-endian; `origin` is the type it was quantized from.
    ///
    /// # Errors
    /// [`Error::Length`] when the rank is below 2 or a buffer has the wrong size,
    /// [`Error::Unknown`] for a group that the scale type does not go with.
    pub fn from_parts(
        shape: Vec<usize>,
        origin: FloatType,
        scheme: Scheme,
        packed: SharedBytes,
        scales: SharedBytes,
    ) -> Result<Self> {
        scheme.check()?;
        if shape.len() < 2 {
            return Err(Error::length("dimensions of a quantized tensor", 2, shape.len()));
        }
        let columns = shape[shape.len() - 1];
        let rows = shape[..shape.len() - 1]
            .iter()
            .try_fold(1usize, |rows, &n| rows.checked_mul(n))
            .ok_or(Error::TooLarge { rows: usize::MAX, columns })?;
        let (packed_bytes, scale_bytes) = layout::sizes(rows, columns, scheme.group)?;
        if packed.len() != packed_bytes {
            return Err(Error::length("bytes of packed codes", packed_bytes, packed.len()));
        }
        if scales.len() != scale_bytes {
            return Err(Error::length("bytes of scales", scale_bytes, scales.len()));
        }
        Ok(Self { shape, origin, scheme, packed, scales })
    }

    /// Logical shape, `[N, K]` or `[E, N, K]`.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Rows: the product of all dimensions but the last.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.shape[..self.shape.len() - 1].iter().product()
    }

    /// Columns `K`: the last dimension.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.shape[self.shape.len() - 1]
    }

    /// The type the weight was quantized from.
    #[must_use]
    pub fn origin(&self) -> FloatType {
        self.origin
    }

    /// How it was quantized.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Canonical codes, `[rows, ceil(6 K / 8)]` bytes.
    #[must_use]
    pub fn packed(&self) -> &SharedBytes {
        &self.packed
    }

    /// Scales, `[rows, groups]` little-endian 16-bit words of the scheme's scale type.
    #[must_use]
    pub fn scales(&self) -> &SharedBytes {
        &self.scales
    }

    /// The same weights with a half-precision scale of its own for every half of a group;
    /// the tensor itself if its scales are not paired.
    ///
    /// # Errors
    /// [`Error::Unknown`] for pairs in groups of 32: there are no groups of 16.
    pub fn unpaired(&self) -> Result<Self> {
        let Scheme { scale_type, rule, .. } = self.scheme;
        if scale_type != ScaleType::Pair {
            return Ok(self.clone());
        }
        let columns = self.columns();
        let group = Group::columns(self.scheme.scale_width(columns))?;
        let words = self.scheme.group.count(columns) * 2;
        let mut scales = Vec::with_capacity(self.rows() * group.count(columns) * 2);
        for row in self.scales.chunks_exact(words.max(1)) {
            for i in 0..group.count(columns) {
                scales.extend(scale_type.scale_at(row, i).to_le_bytes());
            }
        }
        let scheme = Scheme { group, rule, scale_type: ScaleType::F16 };
        Self::from_parts(self.shape.clone(), self.origin, scheme, self.packed.clone(), scales.into())
    }

    /// Bytes of codes and scales.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        self.packed.len() + self.scales.len()
    }

    /// Stored bits per weight, 6.125 at the default group; 0 for an empty tensor.
    #[must_use]
    pub fn bits_per_weight(&self) -> f64 {
        let weights = self.rows() * self.columns();
        if weights == 0 { 0.0 } else { self.nbytes() as f64 * 8.0 / weights as f64 }
    }

    /// The slices `range` of the first dimension: rows of a matrix, experts of a stack.
    ///
    /// # Errors
    /// [`Error::Length`] when `range` does not lie inside the first dimension.
    pub fn slice(&self, range: Range<usize>) -> Result<Self> {
        let outer = self.shape[0];
        if range.start > range.end || range.end > outer {
            return Err(Error::length("end of a slice of the first dimension, at most", outer, range.end));
        }
        let part = |bytes: &SharedBytes| {
            let step = bytes.len().checked_div(outer).unwrap_or(0);
            bytes
                .slice(range.start * step..range.end * step)
                .ok_or_else(|| Error::length("bytes of a slice", range.end * step, bytes.len()))
        };
        let mut shape = self.shape.clone();
        shape[0] = range.end - range.start;
        Self::from_parts(shape, self.origin, self.scheme, part(&self.packed)?, part(&self.scales)?)
    }

    /// One expert `[N, K]` of a stack `[E, N, K]`.
    ///
    /// # Errors
    /// [`Error::Length`] unless the tensor has three dimensions and `index < E`.
    pub fn expert(&self, index: usize) -> Result<Self> {
        if self.shape.len() != 3 {
            return Err(Error::length("dimensions of a stack of experts", 3, self.shape.len()));
        }
        if index >= self.shape[0] {
            return Err(Error::length("index of an expert, below", self.shape[0], index));
        }
        let mut expert = self.slice(index..index + 1)?;
        expert.shape.remove(0);
        Ok(expert)
    }
}
