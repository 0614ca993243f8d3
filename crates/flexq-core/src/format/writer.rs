//! Writing a file: any order, any thread, all or nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use xxhash_rust::xxh3::Xxh3;

use super::plan::{EntryId, Plan};
use super::temporary::Temporary;
use crate::error::{Error, Result};

/// Writes the tensors of a [`Plan`] to their places.
///
/// The file appears under its name only when [`Writer::finish`] has succeeded; until
/// then it is a hidden temporary file beside it, removed when the writer is dropped.
#[derive(Debug)]
pub struct Writer {
    plan: Plan,
    path: PathBuf,
    temporary: Temporary,
    slots: Vec<Slot>,
}

/// The place of one tensor and how far it has been written.
#[derive(Debug)]
struct Slot {
    start: u64,
    bytes: usize,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    written: usize,
    hash: Xxh3,
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.written)
    }
}

impl Writer {
    /// Begins the file `path`, replacing what has that name when it is finished.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`] for a plan that no file can hold.
    pub fn create(path: impl AsRef<Path>, plan: Plan) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let layout = plan.layout().map_err(|fault| fault.at(&path))?;
        let starts: BTreeMap<&str, usize> =
            layout.entries.iter().map(|entry| (entry.name(), entry.range.start)).collect();
        let slots = plan
            .entries()
            .iter()
            .map(|entry| Slot {
                start: (layout.header_bytes + starts[entry.name()]) as u64,
                bytes: entry.nbytes(),
                progress: Mutex::default(),
            })
            .collect();
        let temporary = Temporary::create(&path)?;
        Ok(Self { plan, path, temporary, slots })
    }

    /// Appends `bytes` to a tensor. Tensors may be written in any order and from
    /// several threads; the bytes of one tensor come in order.
    ///
    /// # Errors
    /// [`Error::Length`] for more bytes than the tensor has, [`Error::Io`], with
    /// [`std::io::ErrorKind::StorageFull`] on a full disk.
    pub fn write(&self, id: EntryId, bytes: &[u8]) -> Result<()> {
        let offset = self.count(id, bytes)?;
        self.place(id, offset, bytes)
    }

    /// Takes the next `bytes` of a tensor into its checksum and gives their offset in it.
    pub(crate) fn count(&self, id: EntryId, bytes: &[u8]) -> Result<usize> {
        let slot = &self.slots[id.0];
        let mut progress = slot.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = progress.written;
        if bytes.len() > slot.bytes - offset {
            let found = offset.saturating_add(bytes.len());
            return Err(Error::length(self.describe(id), slot.bytes, found));
        }
        progress.hash.update(bytes);
        progress.written += bytes.len();
        Ok(offset)
    }

    /// Puts `bytes` at an offset of a tensor, without taking them into its checksum:
    /// that is for [`Writer::count`], which must see them in order, as this need not.
    pub(crate) fn place(&self, id: EntryId, offset: usize, bytes: &[u8]) -> Result<()> {
        self.temporary.write_at(bytes, self.slots[id.0].start + offset as u64)
    }

    /// Makes durable what was put to its place so far, while other threads go on: what is
    /// left for [`Writer::finish`] then takes less time.
    pub(crate) fn flush(&self) -> Result<()> {
        self.temporary.flush()
    }

    /// Writes the header, makes everything durable and gives the file its name.
    ///
    /// # Errors
    /// [`Error::Length`] for a tensor not yet complete, [`Error::Io`].
    pub fn finish(self) -> Result<()> {
        self.write_header()?;
        self.temporary.persist(&self.path)
    }

    /// The same without waiting for the disk: after a power failure the file may be there
    /// and incomplete, which its checksums tell.
    ///
    /// # Errors
    /// Those of [`Writer::finish`].
    pub fn finish_unsynced(self) -> Result<()> {
        self.write_header()?;
        self.temporary.rename(&self.path)
    }

    fn write_header(&self) -> Result<()> {
        let mut checksums = BTreeMap::new();
        for (at, (slot, entry)) in self.slots.iter().zip(self.plan.entries()).enumerate() {
            let progress = slot.progress.lock().unwrap_or_else(PoisonError::into_inner);
            if progress.written != slot.bytes {
                return Err(Error::length(self.describe(EntryId(at)), slot.bytes, progress.written));
            }
            checksums.insert(entry.name().to_owned(), progress.hash.digest());
        }
        let layout = self.plan.layout().map_err(|fault| fault.at(&self.path))?;
        self.temporary.write_at(&self.plan.header(&layout.entries, &checksums), 0)
    }

    fn describe(&self, id: EntryId) -> String {
        format!("bytes of tensor {:?}", self.plan.entries()[id.0].name())
    }
}
