//! Every way in which a checkpoint's directory can be wrong.

/// One fault of a checkpoint. [`crate::Error::Checkpoint`] adds the path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A directory without weights in safetensors.
    #[error("no safetensors file in this directory")]
    NoWeights,
    /// Several files, and no index to say which belong together.
    #[error("{} safetensors files but no model.safetensors.index.json: {}", files.len(), files.join(", "))]
    NoIndex {
        /// Their names.
        files: Vec<String>,
    },
    /// A JSON file beyond any real one.
    #[error("{found} bytes of JSON, the limit is {limit}")]
    JsonTooLarge {
        /// The limit.
        limit: u64,
        /// Its size.
        found: u64,
    },
    /// A JSON file that cannot be read as what it should be.
    #[error("not the JSON expected here: {message}")]
    Json {
        /// What the parser says, with line and column.
        message: String,
    },
    /// A name in the index that is no plain file name: it could lead out of the directory.
    #[error("index puts tensor {tensor:?} into {file:?}, which is no plain name of a safetensors file")]
    ShardName {
        /// The first tensor there.
        tensor: String,
        /// The name.
        file: String,
    },
    /// An index without tensors.
    #[error("index lists no tensors")]
    EmptyIndex,
    /// A shard that is not there.
    #[error("index names the file {file:?}, which is missing (is the download complete?)")]
    MissingShard {
        /// Its name.
        file: String,
    },
    /// A tensor that is not where the index says.
    #[error("index puts tensor {tensor:?} into {file:?}, which does not hold it")]
    MissingTensor {
        /// The tensor.
        tensor: String,
        /// The file.
        file: String,
    },
    /// A tensor in two files.
    #[error("tensor {tensor:?} is in both {first:?} and {second:?}")]
    DuplicateTensor {
        /// The tensor.
        tensor: String,
        /// The file it was first found in.
        first: String,
        /// The other one.
        second: String,
    },
}
