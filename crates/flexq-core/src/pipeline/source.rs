//! Files that are read by position, from any thread.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file opened for reading.
///
/// Plain reads rather than a mapping: the bytes land in a buffer that stays in the cache,
/// no page table is filled, and a failing disk is an error instead of a signal.
#[derive(Debug)]
pub(crate) struct Source {
    file: fs::File,
    path: PathBuf,
}

impl Source {
    pub fn open(path: &Path) -> Result<Self> {
        let file = fs::File::open(path).map_err(|error| Error::io("open", path, error))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Fills `buffer` from `offset` on.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        read_exact_at(&self.file, buffer, offset).map_err(|error| Error::io("read", &self.path, error))
    }
}

#[cfg(unix)]
fn read_exact_at(file: &fs::File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &fs::File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[read..];
        offset += read as u64;
    }
    Ok(())
}
