//! Every way in which a file can be wrong.

use std::path::PathBuf;

use super::dtype::Dtype;
use crate::error::Error;

/// A JSON document of a file: its header, or the manifest inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// The safetensors header.
    Header,
    /// The JSON text under `flexq` in the header's metadata.
    Manifest,
}

impl std::fmt::Display for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Manifest => "flexq manifest",
        })
    }
}

/// One fault of a file. [`crate::Error::Format`] adds the path.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    // The container.
    /// Too short for the 8 bytes that give the header's length.
    #[error("a safetensors file has at least 8 bytes, this one has {found}")]
    TooShort {
        /// Bytes in the file.
        found: usize,
    },
    /// A header beyond the limit of safetensors.
    #[error("header of {found} bytes exceeds the limit of {limit} (is this a safetensors file?)")]
    HeaderTooLarge {
        /// The limit.
        limit: usize,
        /// The length claimed.
        found: u64,
    },
    /// A header that reaches beyond the end of the file.
    #[error("header needs {expected} bytes, the file has {found} (is it complete?)")]
    HeaderTruncated {
        /// Bytes of the length field and the header.
        expected: usize,
        /// Bytes in the file.
        found: usize,
    },
    /// A header that is not UTF-8.
    #[error("header is not UTF-8 at byte {offset} of the file")]
    HeaderNotUtf8 {
        /// The first bad byte, from the start of the file.
        offset: usize,
    },
    /// Text that is not JSON.
    #[error("{document} is not JSON: {message}")]
    Json {
        /// Where.
        document: Document,
        /// What the parser says, with line and column.
        message: String,
    },
    /// JSON nested deeper than any valid document.
    #[error("{document} nests deeper than {limit} levels at byte {offset}")]
    TooDeep {
        /// Where.
        document: Document,
        /// The limit.
        limit: usize,
        /// The bracket too many, from the start of the document.
        offset: usize,
    },
    /// JSON of the wrong kind: a missing or repeated field, a string for a number.
    #[error("{document}, entry {entry:?}: {message}")]
    Schema {
        /// Where.
        document: Document,
        /// The entry, empty when the fault is outside of any.
        entry: String,
        /// What the parser says.
        message: String,
    },
    /// One key twice in one JSON object.
    #[error("{document} holds the key {key:?} twice")]
    DuplicateKey {
        /// Where.
        document: Document,
        /// The key.
        key: String,
    },
    /// An element type that safetensors does not know.
    #[error("tensor {tensor:?} has the unknown type {found:?}")]
    UnknownDtype {
        /// The tensor.
        tensor: String,
        /// Its type.
        found: String,
    },
    /// More dimensions than any tensor has.
    #[error("tensor {tensor:?} has {found} dimensions, the limit is {limit}")]
    Rank {
        /// The tensor.
        tensor: String,
        /// The limit.
        limit: usize,
        /// Its dimensions.
        found: usize,
    },
    /// A size that does not fit the address space.
    #[error("tensor {tensor:?} of shape {shape:?} does not fit the address space")]
    TooLarge {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// A tensor of sub-byte elements that ends within a byte.
    #[error("tensor {tensor:?} of type {dtype} takes {bits} bits, which is no whole number of bytes")]
    PartialByte {
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: Dtype,
        /// Its bits.
        bits: usize,
    },
    /// Data that ends before it begins.
    #[error("tensor {tensor:?} ends at offset {end}, before its start at {start}")]
    Reversed {
        /// The tensor.
        tensor: String,
        /// Its first offset.
        start: u64,
        /// Its second offset.
        end: u64,
    },
    /// Data of another size than shape and type give.
    #[error("tensor {tensor:?}: shape and type give {expected} bytes, the offsets {found}")]
    Size {
        /// The tensor.
        tensor: String,
        /// Bytes by shape and type.
        expected: usize,
        /// Bytes by offsets.
        found: u64,
    },
    /// Data that begins inside the tensor before.
    #[error(
        "tensor {tensor:?} begins at offset {found}, inside the tensor before it, which ends at {expected}"
    )]
    Overlap {
        /// The tensor.
        tensor: String,
        /// End of the tensor before.
        expected: usize,
        /// Its start.
        found: u64,
    },
    /// Bytes between two tensors that belong to neither.
    #[error("tensor {tensor:?} begins at offset {found}, but the data before it ends at {expected}")]
    Gap {
        /// The tensor.
        tensor: String,
        /// End of the data before.
        expected: usize,
        /// Its start.
        found: u64,
    },
    /// Less data than the header describes.
    #[error("header describes {expected} bytes of data, the file has {found} (is it complete?)")]
    Truncated {
        /// Bytes described.
        expected: usize,
        /// Bytes after the header.
        found: usize,
    },
    /// More data than the header describes.
    #[error("header describes {expected} bytes of data, the file has {found}")]
    Trailing {
        /// Bytes described.
        expected: usize,
        /// Bytes after the header.
        found: usize,
    },

    // The manifest.
    /// A file of a later major version.
    #[error("flexq format version {found}; this release reads versions up to {supported}")]
    Version {
        /// The newest version known.
        supported: u64,
        /// The version of the file.
        found: u64,
    },
    /// Codes of another width than 6 bits.
    #[error("tensor {tensor:?} has {found}-bit codes, expected 6")]
    Bits {
        /// The quantized tensor.
        tensor: String,
        /// The width.
        found: u64,
    },
    /// A property of a quantized tensor outside its fixed set.
    #[error("tensor {tensor:?}: unknown {what} {found:?}, expected one of {expected}")]
    Unknown {
        /// The quantized tensor.
        tensor: String,
        /// The property.
        what: &'static str,
        /// Its value.
        found: String,
        /// The values accepted.
        expected: &'static str,
    },
    /// A quantized tensor that is no matrix or stack of matrices.
    #[error("quantized tensor {tensor:?} has {found} dimension(s), expected 2 to {limit}")]
    QuantizedRank {
        /// The quantized tensor.
        tensor: String,
        /// The limit.
        limit: usize,
        /// Its dimensions.
        found: usize,
    },
    /// A quantized tensor without its codes or its scales.
    #[error("quantized tensor {tensor:?} lacks {stored:?}")]
    MissingPart {
        /// The quantized tensor.
        tensor: String,
        /// The stored tensor expected.
        stored: String,
    },
    /// Codes or scales of the wrong type.
    #[error("tensor {stored:?} is of type {found}, expected {expected}")]
    PartDtype {
        /// The stored tensor.
        stored: String,
        /// The type required.
        expected: Dtype,
        /// Its type.
        found: Dtype,
    },
    /// Codes or scales of the wrong shape.
    #[error("tensor {stored:?} has the shape {found:?}, expected {expected:?}")]
    PartShape {
        /// The stored tensor.
        stored: String,
        /// The shape required.
        expected: Vec<usize>,
        /// Its shape.
        found: Vec<usize>,
    },
    /// One name for two tensors: a quantized one and a stored one.
    #[error("name {name:?} stands for two tensors")]
    NameClash {
        /// The name.
        name: String,
    },
    /// A stored tensor without checksum: it was added after flexq wrote the file.
    #[error("tensor {tensor:?} has no checksum in the flexq manifest")]
    MissingChecksum {
        /// The stored tensor.
        tensor: String,
    },
    /// A checksum of a tensor that is not there.
    #[error("the flexq manifest has a checksum of {tensor:?}, which the file lacks")]
    StrayChecksum {
        /// The name.
        tensor: String,
    },
    /// A checksum that is not 16 lower-case hexadecimal digits.
    #[error("checksum of {tensor:?} is {found:?}, expected 16 lower-case hexadecimal digits")]
    ChecksumSyntax {
        /// The stored tensor; `header` for the checksum of the header.
        tensor: String,
        /// The text.
        found: String,
    },

    // What `verify` finds.
    /// A header that is not the one written.
    #[error("header has changed since it was written: checksum {expected:016x} expected, {found:016x} found")]
    HeaderChecksum {
        /// The checksum stored.
        expected: u64,
        /// The checksum of the bytes.
        found: u64,
    },
    /// Data that is not the data written.
    #[error(
        "tensor {tensor:?} has changed since it was written: checksum {expected:016x} expected, {found:016x} found"
    )]
    Checksum {
        /// The stored tensor.
        tensor: String,
        /// The checksum stored.
        expected: u64,
        /// The checksum of the bytes.
        found: u64,
    },
    /// Bits after the last code of a row that are not zero.
    #[error("tensor {tensor:?}, row {row}: the bits after the last code are not zero")]
    PadBits {
        /// The stored tensor.
        tensor: String,
        /// The first such row.
        row: usize,
    },
    /// A scale that is NaN or infinite.
    #[error("tensor {tensor:?}, row {row}, group {group}: the scale is {found}")]
    ScaleNotFinite {
        /// The stored tensor.
        tensor: String,
        /// Row of the first such scale.
        row: usize,
        /// Its group.
        group: usize,
        /// Its value; NaN compares unequal to itself, so it is kept as text.
        found: String,
    },

    // Requests a file cannot serve.
    /// No tensor of that name.
    #[error("no tensor {tensor:?}")]
    NoTensor {
        /// The name asked for.
        tensor: String,
    },
    /// A tensor that holds no floats to quantize.
    #[error("tensor {tensor:?} is of type {found}, expected F32, F16 or BF16")]
    NotFloat {
        /// The tensor.
        tensor: String,
        /// Its type.
        found: Dtype,
    },
    /// A valid safetensors file that flexq did not write.
    #[error("not a flexq file: the header's metadata has no \"flexq\" entry")]
    NoManifest,
}

impl FormatError {
    /// This fault in the file `path`.
    pub fn at(self, path: impl Into<PathBuf>) -> Error {
        Error::Format { path: path.into(), fault: Box::new(self) }
    }
}
