//! A checkpoint as it lies on disk: a Hugging Face directory, or one safetensors file.

mod config;
mod error;
mod index;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub use config::{CONFIG, ModelConfig, QUANTIZATION};
pub use error::CheckpointError;
pub(crate) use index::render as render_index;
pub use index::{INDEX, SINGLE};

use crate::error::{Error, Result};
use crate::format::{Entry, File};

/// The largest JSON file read: real indexes and configurations stay far below.
const MAX_JSON: u64 = 100_000_000;

/// What a path holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One safetensors file.
    File,
    /// A directory of one or more, with its other files.
    Directory,
}

/// One safetensors file of a checkpoint.
#[derive(Debug)]
pub struct Shard {
    name: String,
    path: PathBuf,
    file: File,
}

impl Shard {
    /// File name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The opened file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// An opened checkpoint: every header read and checked, no data touched.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    kind: Kind,
    config: Option<ModelConfig>,
    shards: Vec<Shard>,
}

impl Checkpoint {
    /// Opens a directory or a file.
    ///
    /// A directory holds `model.safetensors`, or the files that
    /// `model.safetensors.index.json` names, or any single `*.safetensors`. Files the index
    /// names must be in the directory itself and hold the tensors it says.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] for a faulty safetensors file, and
    /// [`Error::Checkpoint`] for a faulty directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let metadata = fs::metadata(path).map_err(|error| Error::io("open", path, error))?;
        if !metadata.is_dir() {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let shard = Shard { name, path: path.to_owned(), file: File::open(path)? };
            return Ok(Self { path: path.to_owned(), kind: Kind::File, config: None, shards: vec![shard] });
        }
        let config = read_json(&path.join(CONFIG))?.map(ModelConfig::new);
        let shards = open_shards(path)?;
        check_unique(path, &shards)?;
        Ok(Self { path: path.to_owned(), kind: Kind::Directory, config, shards })
    }

    /// The path given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// File or directory.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// `config.json`, where there is one.
    #[must_use]
    pub fn config(&self) -> Option<&ModelConfig> {
        self.config.as_ref()
    }

    /// Its safetensors files, sorted by name.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Bytes of all safetensors files.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        let headers: usize = self.shards.iter().map(|shard| shard.file.header_bytes()).sum();
        headers as u64 + self.entries().map(|entry| entry.nbytes() as u64).sum::<u64>()
    }

    /// Every stored tensor, file by file, in the order of the data.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.shards.iter().flat_map(|shard| shard.file.entries())
    }
}

/// The configuration at `path`: a `config.json`, or a directory that holds one.
///
/// # Errors
/// [`Error::Io`] when there is none, [`Error::Checkpoint`] when it is no JSON object.
pub fn read_config(path: &Path) -> Result<ModelConfig> {
    let file = if path.is_dir() { path.join(CONFIG) } else { path.to_owned() };
    read_json(&file)?
        .map(ModelConfig::new)
        .ok_or_else(|| Error::io("open", &file, std::io::ErrorKind::NotFound.into()))
}

/// A JSON document, or `None` when the file does not exist.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let fault = |error| Error::checkpoint(path, error);
    let found = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path, error)),
    };
    if found > MAX_JSON {
        return Err(fault(CheckpointError::JsonTooLarge { limit: MAX_JSON, found }));
    }
    let bytes = fs::read(path).map_err(|error| Error::io("open", path, error))?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| fault(CheckpointError::Json { message: error.to_string() }))
}

fn open_shards(directory: &Path) -> Result<Vec<Shard>> {
    let single = directory.join(SINGLE);
    if single.exists() {
        return Ok(vec![Shard { name: SINGLE.to_owned(), file: File::open(&single)?, path: single }]);
    }
    let index = directory.join(INDEX);
    let Some(json) = read_json(&index)? else {
        let name = only_file(directory)?;
        let path = directory.join(&name);
        return Ok(vec![Shard { name, file: File::open(&path)?, path }]);
    };
    let fault = |error| Error::checkpoint(&index, error);
    let mut shards = Vec::new();
    for (name, tensors) in index::parse(json).map_err(fault)? {
        let path = directory.join(&name);
        if !path.exists() {
            return Err(fault(CheckpointError::MissingShard { file: name }));
        }
        let file = File::open(&path)?;
        if let Some(tensor) = tensors.into_iter().find(|tensor| file.entry(tensor).is_none()) {
            return Err(fault(CheckpointError::MissingTensor { tensor, file: name }));
        }
        shards.push(Shard { name, path, file });
    }
    Ok(shards)
}

/// The name of the one safetensors file of a directory without index.
fn only_file(directory: &Path) -> Result<String> {
    let io = |error| Error::io("read", directory, error);
    let mut files = Vec::new();
    for item in fs::read_dir(directory).map_err(io)? {
        let name = item.map_err(io)?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".safetensors") {
            files.push(name);
        }
    }
    files.sort();
    match files.len() {
        0 => Err(Error::checkpoint(directory, CheckpointError::NoWeights)),
        1 => Ok(files.remove(0)),
        _ => Err(Error::checkpoint(directory, CheckpointError::NoIndex { files })),
    }
}

fn check_unique(directory: &Path, shards: &[Shard]) -> Result<()> {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for shard in shards {
        for entry in shard.file.entries() {
            if let Some(first) = seen.insert(entry.name(), &shard.name) {
                let (tensor, first, second) = (entry.name().to_owned(), first.to_owned(), shard.name.clone());
                return Err(Error::checkpoint(
                    directory,
                    CheckpointError::DuplicateTensor { tensor, first, second },
                ));
            }
        }
    }
    Ok(())
}
