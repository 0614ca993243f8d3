//! What can go wrong, as facts rather than sentences.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;

use crate::checkpoint::CheckpointError;
use crate::format::FormatError;
use crate::interop::InteropError;
use crate::pipeline::PipelineError;
use crate::plan::PlanError;
use crate::select::SelectError;

/// The result of fallible operations of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A NaN or an infinity where a weight was expected.
    #[error(
        "{}row {row}, column {column} holds {value}; only finite weights can be quantized (exclude the tensor to keep it as it is)",
        subject(tensor)
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
        "{}row {row}, group {group}: scale {scale:e} does not fit {scale_type}; store scales as BF16",
        subject(tensor)
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
        scale_type: crate::scheme::ScaleType,
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
    /// A row that a matrix does not have.
    #[error("row {found}: expected 0 <= row < {rows}")]
    NoRow {
        /// The number given.
        found: String,
        /// How many rows there are.
        rows: usize,
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
    /// A file that cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `open`, `create`, `write`, ...
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file whose content is wrong, or lacks what was asked of it.
    #[error("{}: {fault}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        fault: Box<FormatError>,
    },
    /// A checkpoint's directory that is not what it should be.
    #[error("{}: {fault}", path.display())]
    Checkpoint {
        /// The directory, or the file in it.
        path: PathBuf,
        /// What is wrong.
        #[source]
        fault: CheckpointError,
    },
    /// A conversion that was refused.
    #[error("{}: {fault}", path.display())]
    Pipeline {
        /// The input, the output or the file that it is about.
        path: PathBuf,
        /// Why.
        #[source]
        fault: PipelineError,
    },
    /// Rules that do not fit the checkpoint.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// A configuration that does not tell the model's tensors.
    #[error("{}: {fault}", path.display())]
    Plan {
        /// The configuration.
        path: PathBuf,
        /// Why not.
        #[source]
        fault: PlanError,
    },
    /// A checkpoint that has no equal in the other format.
    #[error("{}: {fault}", path.display())]
    Interop {
        /// The checkpoint or its file.
        path: PathBuf,
        /// Why not.
        #[source]
        fault: InteropError,
    },
    /// A failure at one tensor.
    #[error("tensor {tensor:?}: {source}")]
    Tensor {
        /// Its name.
        tensor: String,
        /// What failed.
        source: Box<Self>,
    },
    /// Work that was told to stop.
    #[error("interrupted")]
    Interrupted,
}

/// How a message about a tensor begins, if it has a name.
fn subject(tensor: &str) -> String {
    if tensor.is_empty() { String::new() } else { format!("tensor {tensor:?}: ") }
}

impl Error {
    /// An [`Error::Length`].
    pub fn length(what: impl Into<String>, expected: usize, found: usize) -> Self {
        Self::Length { what: what.into(), expected, found }
    }

    /// An [`Error::NoRow`].
    pub fn no_row(found: impl Display, rows: usize) -> Self {
        Self::NoRow { found: found.to_string(), rows }
    }

    /// An [`Error::Unknown`].
    pub fn unknown(what: &'static str, found: impl Display, expected: &'static str) -> Self {
        Self::Unknown { what, found: found.to_string(), expected }
    }

    /// An [`Error::Io`].
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    /// An [`Error::Checkpoint`].
    pub fn checkpoint(path: impl Into<PathBuf>, fault: CheckpointError) -> Self {
        Self::Checkpoint { path: path.into(), fault }
    }

    /// An [`Error::Pipeline`].
    pub fn pipeline(path: impl Into<PathBuf>, fault: PipelineError) -> Self {
        Self::Pipeline { path: path.into(), fault }
    }

    /// An [`Error::Interop`].
    pub fn interop(path: impl Into<PathBuf>, fault: InteropError) -> Self {
        Self::Interop { path: path.into(), fault }
    }

    /// The same error, naming the tensor it happened in where that is not yet known.
    #[must_use]
    pub fn in_tensor(mut self, name: &str) -> Self {
        match &mut self {
            Self::NonFinite { tensor, .. } | Self::ScaleOverflow { tensor, .. } if tensor.is_empty() => {
                name.clone_into(tensor);
                self
            }
            Self::Unknown { .. } | Self::Length { .. } => {
                Self::Tensor { tensor: name.to_owned(), source: Box::new(self) }
            }
            _ => self,
        }
    }

    /// The same error, its row counted from `first` rows earlier.
    #[must_use]
    pub(crate) fn after_rows(mut self, first: usize) -> Self {
        if let Self::NonFinite { row, .. } | Self::ScaleOverflow { row, .. } = &mut self {
            *row += first;
        }
        self
    }
}
