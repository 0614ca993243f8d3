//! What can go wrong, as facts rather than sentences.

use std::fmt::Display;

/// The result of fallible operations of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A NaN or an infinity where a weight was expected.
    #[error(
        "tensor {tensor:?}: row {row}, column {column} holds {value}; only finite weights can be quantized (exclude the tensor to keep it as it is)"
    )]
    NonFinite {
        /// Name of the tensor; empty when it has none.
        tensor: String,
        /// Row of the first such element.
        row: usize,
        /// Its column.
        column: usize,
        /// The element.
        value: f32,
    },
    /// A group whose scale exceeds the range of its storage type.
    #[error(
        "tensor {tensor:?}: row {row}, group {group}: scale {scale:e} does not fit {scale_type}; store scales as BF16"
    )]
    ScaleOverflow {
        /// Name of the tensor; empty when it has none.
        tensor: String,
        /// Row of the first such group.
        row: usize,
        /// Index of the group in the row.
        group: usize,
        /// The scale before rounding.
        scale: f32,
        /// The storage type.
        scale_type: crate::dtype::FloatType,
    },
    /// A buffer or dimension of the wrong length.
    #[error("{what}: expected {expected}, found {found}")]
    Length {
        /// What was measured.
        what: String,
        /// The length required.
        expected: usize,
        /// The length given.
        found: usize,
    },
    /// A matrix whose size in bytes does not fit the address space.
    #[error("a matrix of {rows} x {columns} does not fit the address space")]
    TooLarge {
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        columns: usize,
    },
    /// A value outside a fixed set.
    #[error("unknown {what} {found:?}: expected one of {expected}")]
    Unknown {
        /// What the value was meant to name.
        what: &'static str,
        /// The value given.
        found: String,
        /// The values accepted.
        expected: &'static str,
    },
}

impl Error {
    /// An [`Error::Length`].
    pub fn length(what: impl Into<String>, expected: usize, found: usize) -> Self {
        Self::Length { what: what.into(), expected, found }
    }

    /// An [`Error::Unknown`].
    pub fn unknown(what: &'static str, found: impl Display, expected: &'static str) -> Self {
        Self::Unknown { what, found: found.to_string(), expected }
    }

    /// The same error, naming the tensor it happened in where that is not yet known.
    #[must_use]
    pub fn in_tensor(mut self, name: &str) -> Self {
        if let Self::NonFinite { tensor, .. } | Self::ScaleOverflow { tensor, .. } = &mut self
            && tensor.is_empty()
        {
            name.clone_into(tensor);
        }
        self
    }
}
