//! Memory-mapped files: the only unsafe code outside of SIMD.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

/// A file mapped for reading. Clones share the mapping.
///
/// Nobody may shorten the file or write into it while it is mapped: reading a page
/// that is gone ends the process, and changed bytes would break what was checked.
/// Replacing it by renaming another file onto its name is harmless.
#[derive(Clone, Debug)]
pub struct Mapping(Arc<Mmap>);

impl Mapping {
    /// Maps a regular file.
    ///
    /// # Errors
    /// What the system says, or [`io::ErrorKind::InvalidInput`] for anything but a
    /// regular file (opening a pipe would wait for ever).
    pub fn open(path: &Path) -> io::Result<Self> {
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let file = fs::File::open(path)?;
        // SAFETY: the mapping is private to this value and read-only; that the file is
        // not changed meanwhile is the documented condition of this type.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self(Arc::new(map)))
    }

    /// Tells the system that the pages of `range` are not needed for now, so that a
    /// pass over a large file does not count as resident memory. They stay readable.
    pub fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if range.start < range.end && range.end <= self.0.len() {
            // SAFETY: dropping pages of a read-only file mapping loses nothing: the next
            // access reads them again from the file.
            let dropped = unsafe {
                self.0.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    range.start,
                    range.end - range.start,
                )
            };
            // Advice that is not taken costs memory, not correctness.
            drop(dropped);
        }
        #[cfg(not(unix))]
        drop(range);
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
