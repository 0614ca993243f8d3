//! Opening a file, ours or any other safetensors file.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::error::FormatError;
use super::header::{self, Entry};
use super::manifest::{self, Manifest, packed_name, scale_name};
use crate::bytes::SharedBytes;
use crate::error::{Error, Result};
use crate::mmap::Mapping;
use crate::qtensor::QTensor;
use crate::rows::FloatRows;

/// A safetensors file, checked from end to end of its header.
///
/// Tensors are handed out without copying and keep the file's bytes alive.
#[derive(Clone, Debug)]
pub struct File {
    path: PathBuf,
    bytes: SharedBytes,
    mapping: Option<Mapping>,
    data_start: usize,
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
    metadata: BTreeMap<String, String>,
    manifest: Option<Manifest>,
}

impl File {
    /// Maps and checks a file. Its data is not read; see [`crate::verify`] for that.
    ///
    /// The file must not be shortened or written to while it is open (see
    /// [`Mapping`]); replacing it by renaming is harmless.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`] with the first fault found.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mapping = Mapping::open(path).map_err(|source| Error::io("open", path, source))?;
        let mut file = Self::from_bytes(SharedBytes::new(mapping.clone()), path)?;
        file.mapping = Some(mapping);
        Ok(file)
    }

    /// Checks a file that is already in memory. `path` is its name in errors.
    ///
    /// # Errors
    /// [`Error::Format`] with the first fault found.
    pub fn from_bytes(bytes: SharedBytes, path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        match parse(&bytes) {
            Ok((header, manifest)) => {
                let name_at = |(at, entry): (usize, &Entry)| (entry.name.clone(), at);
                Ok(Self {
                    index: header.entries.iter().enumerate().map(name_at).collect(),
                    path,
                    bytes,
                    mapping: None,
                    data_start: header.data_start,
                    entries: header.entries,
                    metadata: header.metadata,
                    manifest,
                })
            }
            Err(fault) => Err(fault.at(path)),
        }
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stored tensors, in the order of their data.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The stored tensor of that name.
    #[must_use]
    pub fn entry(&self, stored: &str) -> Option<&Entry> {
        self.index.get(stored).map(|&at| &self.entries[at])
    }

    /// The strings of the header, the manifest's JSON among them.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// What flexq wrote about its tensors; `None` for a file of another origin.
    #[must_use]
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// Bytes in front of the data: the length field and the header.
    #[must_use]
    pub fn header_bytes(&self) -> usize {
        self.data_start
    }

    /// The length field and the header as stored.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        &self.bytes[..self.data_start]
    }

    /// Logical names in file order: a quantized tensor counts once, in the place of
    /// its codes.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let Some(manifest) = &self.manifest else {
            return self.entries.iter().map(Entry::name).collect();
        };
        let quantized = |stored: &str, suffix| {
            let (name, _) = manifest.tensors.get_key_value(stored.strip_suffix(suffix)?)?;
            Some(name.as_str())
        };
        self.entries
            .iter()
            .map(Entry::name)
            .filter(|stored| quantized(stored, "_scale").is_none())
            .map(|stored| quantized(stored, "_packed").unwrap_or(stored))
            .collect()
    }

    /// The bytes of a stored tensor.
    ///
    /// # Errors
    /// [`FormatError::NoTensor`].
    pub fn bytes(&self, stored: &str) -> Result<SharedBytes> {
        let range = self.find(stored)?.range();
        let range = self.data_start + range.start..self.data_start + range.end;
        self.bytes.slice(range).ok_or_else(|| self.no_tensor(stored))
    }

    /// A stored tensor as rows of floats: all leading dimensions together are rows,
    /// and a vector is one row.
    ///
    /// # Errors
    /// [`FormatError::NoTensor`], or [`FormatError::NotFloat`] unless it is F32, F16
    /// or BF16.
    pub fn float_rows(&self, stored: &str) -> Result<FloatRows<'_>> {
        let Entry { dtype, shape, range, .. } = self.find(stored)?;
        let Some(float) = dtype.float() else {
            let fault = FormatError::NotFloat { tensor: stored.into(), found: *dtype };
            return Err(fault.at(&self.path));
        };
        let bytes = &self.bytes[self.data_start + range.start..self.data_start + range.end];
        let (rows, columns) = match shape.split_last() {
            Some((&columns, outer)) => (outer.iter().product(), columns),
            None => (1, 1),
        };
        FloatRows::new(bytes, float, rows, columns)
    }

    /// A quantized tensor by its logical name.
    ///
    /// # Errors
    /// [`FormatError::NoTensor`].
    pub fn qtensor(&self, name: &str) -> Result<QTensor> {
        let description = self.manifest.as_ref().and_then(|manifest| manifest.tensors.get(name));
        let description = description.ok_or_else(|| self.no_tensor(name))?;
        QTensor::from_parts(
            description.shape.clone(),
            description.origin,
            description.scheme,
            self.bytes(&packed_name(name))?,
            self.bytes(&scale_name(name))?,
        )
    }

    /// Lets the system drop a part of a tensor's bytes from memory until they are
    /// read again, so that one pass over a large file stays small.
    pub fn release(&self, stored: &str, part: Range<usize>) {
        if let (Some(mapping), Some(entry)) = (&self.mapping, self.entry(stored)) {
            let start = self.data_start + entry.range.start;
            mapping.release(start + part.start..start + part.end.min(entry.range.len()));
        }
    }

    fn find(&self, stored: &str) -> Result<&Entry> {
        self.entry(stored).ok_or_else(|| self.no_tensor(stored))
    }

    fn no_tensor(&self, name: &str) -> Error {
        FormatError::NoTensor { tensor: name.into() }.at(&self.path)
    }
}

fn parse(bytes: &[u8]) -> Result<(header::Header, Option<Manifest>), FormatError> {
    let header = header::parse(bytes)?;
    let manifest = header
        .metadata
        .get(manifest::KEY)
        .map(|text| {
            let entries = header.entries.iter().map(|entry| (entry.name.as_str(), entry)).collect();
            Manifest::parse(text, &entries)
        })
        .transpose()?;
    Ok((header, manifest))
}
