//! What has no equal in the other format.

/// One obstacle. [`crate::Error::Interop`] adds the path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InteropError {
    /// Not a checkpoint of compressed-tensors.
    #[error("not a checkpoint of compressed-tensors (quant_method: {found})")]
    Method {
        /// Its `quant_method`, or `none`.
        found: String,
    },
    /// A configuration that lacks something, or says what is not supported.
    #[error("quantization_config: {what} is {found}, expected {expected}")]
    Config {
        /// The field.
        what: &'static str,
        /// Its value.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Scales in pairs.
    #[error("tensor {tensor:?} has two scales in a word, which only flexq reads")]
    PairedScales {
        /// The tensor.
        tensor: String,
    },
    /// Weights with zero points.
    #[error(
        "tensor {tensor:?} is quantized asymmetrically (it has zero points); only symmetric weights can be imported"
    )]
    Asymmetric {
        /// The tensor.
        tensor: String,
    },
    /// Weights whose columns are assigned to groups in another order.
    #[error(
        "tensor {tensor:?} has its columns in another order (activation ordering), which is not supported"
    )]
    Reordered {
        /// The tensor.
        tensor: String,
    },
    /// The layout of compressed-tensors 0.17: five 6-bit codes in an int32.
    #[error(
        "tensor {tensor:?} has {found} words in a row, which is the layout of compressed-tensors 0.17 (5 codes per int32); expected {expected} (dense, since 0.18). Save it again with a newer release"
    )]
    FiveToAWord {
        /// The tensor.
        tensor: String,
        /// Words in a row of the dense layout.
        expected: usize,
        /// Words in a row.
        found: usize,
    },
    /// A tensor without its counterpart.
    #[error("tensor {tensor:?} lacks {missing:?}")]
    Missing {
        /// The tensor.
        tensor: String,
        /// What should be there too.
        missing: String,
    },
    /// A tensor of an unexpected type or shape.
    #[error("tensor {tensor:?} is {found}, expected {expected}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// Its type and shape.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// Scales that would change in 16 bits.
    #[error(
        "scales {tensor:?} are F32 and not exact in F16 or BF16, so that importing would change the weights"
    )]
    Scales {
        /// The scales.
        tensor: String,
    },
    /// Rows that are no whole number of groups, which compressed-tensors cannot express.
    #[error("tensor {tensor:?}: rows of {columns} columns are no whole number of groups of {group}")]
    RaggedGroup {
        /// The tensor.
        tensor: String,
        /// Columns.
        columns: usize,
        /// Columns in a group.
        group: usize,
    },
    /// Tensors of several group sizes.
    #[error("tensors have groups of {first} and of {second}; one checkpoint can have only one size")]
    MixedGroups {
        /// One size.
        first: String,
        /// Another.
        second: String,
    },
}
