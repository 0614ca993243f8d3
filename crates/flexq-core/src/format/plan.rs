//! What a file will hold: everything but the data, known before any is written.

use std::collections::{BTreeMap, HashSet};

use super::dtype::Dtype;
use super::error::FormatError;
use super::header::{self, Entry, MAX_HEADER, METADATA};
use super::manifest::{self, Description, Manifest, packed_name, scale_name};
use super::reader::File;

/// A stored tensor of a [`Plan`]: what [`super::Writer::write`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EntryId(pub(super) usize);

/// The tensors of a file in the order they were added, and its metadata.
///
/// ```
/// use flexq_core::format::{Dtype, Plan};
///
/// let mut plan = Plan::new();
/// plan.add("norm.weight", Dtype::BF16, vec![4096])?;
/// assert!(plan.file_bytes()? > 8192);
/// # Ok::<(), flexq_core::format::FormatError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Plan {
    metadata: BTreeMap<String, String>,
    entries: Vec<Entry>,
    names: HashSet<String>,
    tensors: BTreeMap<String, Description>,
}

/// Where everything lies.
pub(super) struct Layout {
    /// Entries in the order of their data.
    pub entries: Vec<Entry>,
    /// Bytes of the length field and the header.
    pub header_bytes: usize,
}

impl Plan {
    /// A file without tensors.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a string of the header's metadata, such as `format` to `pt`.
    /// The key `flexq` is the manifest's: setting it has no effect.
    pub fn set_metadata(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.metadata.insert(key.into(), value.into());
    }

    /// Adds a tensor that is stored as it is.
    ///
    /// # Errors
    /// [`FormatError::NameClash`] for a name already taken, [`FormatError::Rank`],
    /// [`FormatError::TooLarge`], [`FormatError::PartialByte`].
    pub fn add(
        &mut self,
        name: impl Into<String>,
        dtype: Dtype,
        shape: Vec<usize>,
    ) -> Result<EntryId, FormatError> {
        let name = name.into();
        self.check_free(&name)?;
        if shape.len() > header::MAX_RANK {
            return Err(FormatError::Rank { tensor: name, limit: header::MAX_RANK, found: shape.len() });
        }
        let bytes = header::nbytes(&name, dtype, &shape)?;
        self.names.insert(name.clone());
        self.entries.push(Entry { name, dtype, shape, range: 0..bytes });
        Ok(EntryId(self.entries.len() - 1))
    }

    /// Adds a quantized tensor: its codes, then its scales.
    ///
    /// # Errors
    /// Those of [`Plan::add`], and [`FormatError::QuantizedRank`].
    pub fn add_quantized(
        &mut self,
        name: impl Into<String>,
        description: Description,
    ) -> Result<(EntryId, EntryId), FormatError> {
        let name = name.into();
        let [(codes, codes_shape), (scales, scales_shape)] = description.parts(&name)?;
        for taken in [&name, &packed_name(&name), &scale_name(&name)] {
            self.check_free(taken)?;
        }
        let codes = self.add(packed_name(&name), codes, codes_shape)?;
        let scales = self.add(scale_name(&name), scales, scales_shape)?;
        self.tensors.insert(name, description);
        Ok((codes, scales))
    }

    /// Names of the stored tensors, in the order they were added.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.entries.iter().map(Entry::name).collect()
    }

    /// Exact size of the finished file in bytes.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] when the tensors do not fit the address space
    /// together, [`FormatError::HeaderTooLarge`] beyond 100 MB of header.
    pub fn file_bytes(&self) -> Result<u64, FormatError> {
        let layout = self.layout()?;
        let data = layout.entries.last().map_or(0, |entry| entry.range.end);
        Ok(layout.header_bytes as u64 + data as u64)
    }

    /// Bytes of the stored tensors, without the header.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.range.len() as u64).sum()
    }

    /// Whether `file` has the tensors, descriptions and metadata of this plan, so
    /// that it may be the finished file. Its checksums are another matter.
    #[must_use]
    pub fn describes(&self, file: &File) -> bool {
        let mut metadata = file.metadata().clone();
        metadata.remove(manifest::KEY);
        let mut wanted = self.metadata.clone();
        wanted.remove(manifest::KEY);
        let layout = self.layout();
        metadata == wanted
            && file.manifest().is_some_and(|manifest| manifest.tensors == self.tensors)
            && layout.is_ok_and(|layout| layout.entries == file.entries())
    }

    /// Refuses a name that a tensor has, stored or logical.
    fn check_free(&self, name: &str) -> Result<(), FormatError> {
        if name == METADATA || self.names.contains(name) || self.tensors.contains_key(name) {
            return Err(FormatError::NameClash { name: name.into() });
        }
        Ok(())
    }

    /// In the order they were added, which is that of their ids.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn layout(&self) -> Result<Layout, FormatError> {
        let entries = self.place()?;
        let header_bytes = self.header(&entries, &BTreeMap::new()).len();
        if header_bytes > MAX_HEADER {
            return Err(FormatError::HeaderTooLarge { limit: MAX_HEADER, found: header_bytes as u64 });
        }
        Ok(Layout { entries, header_bytes })
    }

    /// The header of a file whose tensors have these checksums; those not given are
    /// zeros, which changes no length.
    pub(super) fn header(&self, entries: &[Entry], checksums: &BTreeMap<String, u64>) -> Vec<u8> {
        let checksum = |entry: &Entry| checksums.get(&entry.name).copied().unwrap_or(0);
        let mut manifest = Manifest {
            tensors: self.tensors.clone(),
            checksums: entries.iter().map(|entry| (entry.name.clone(), checksum(entry))).collect(),
            header: 0,
        };
        let mut metadata = self.metadata.clone();
        metadata.insert(manifest::KEY.into(), manifest.render());
        let blank = header::render(&metadata, entries);
        manifest.header = manifest.checksum_header(&blank);
        metadata.insert(manifest::KEY.into(), manifest.render());
        header::render(&metadata, entries)
    }

    /// Puts tensors of a multiple of 64 bytes first and the rest by element size, so
    /// that every tensor is aligned to its elements and most to 64 bytes.
    fn place(&self) -> Result<Vec<Entry>, FormatError> {
        let mut entries = self.entries.clone();
        entries.sort_by_key(|entry| {
            let even = entry.range.len() % header::ALIGNMENT == 0;
            if even { 0 } else { usize::MAX - entry.dtype.bits() }
        });
        let mut start = 0;
        for entry in &mut entries {
            let end = header::end_of(&entry.name, &entry.shape, start, entry.range.len())?;
            entry.range = start..end;
            start = end;
        }
        Ok(entries)
    }
}
