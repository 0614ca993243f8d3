//! A file that exists under its name completely or not at all.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// What every temporary name contains, with the process id after it.
pub const TEMPORARY_MARK: &str = ".flexq-tmp-";

/// A file under a temporary name beside its final one; removed when dropped.
#[derive(Debug)]
pub(super) struct Temporary {
    file: fs::File,
    path: PathBuf,
}

impl Temporary {
    /// Creates the temporary file of `target`.
    pub fn create(target: &Path) -> Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let name = target.file_name().ok_or_else(|| {
            Error::io("create", target, io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))
        })?;
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let mut temporary = std::ffi::OsString::from(".");
            temporary.push(name);
            temporary.push(format!("{TEMPORARY_MARK}{}-{number}", process::id()));
            let path = target.with_file_name(temporary);
            match fs::File::options().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { file, path }),
                // left behind by a killed process that had our id
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("create", target, error)),
            }
        }
    }

    /// Writes all of `bytes` at `offset`.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        write_all_at(&self.file, bytes, offset).map_err(|error| Error::io("write", &self.path, error))
    }

    /// Makes what was written so far durable. Others may write meanwhile.
    pub fn flush(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| Error::io("write", &self.path, error))
    }

    /// Makes the bytes durable and gives the file its name.
    pub fn persist(self, target: &Path) -> Result<()> {
        self.file.sync_all().map_err(|error| Error::io("write", &self.path, error))?;
        self.rename(target)?;
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        sync_directory(directory).map_err(|error| Error::io("write", directory, error))
    }

    /// Gives the file its name, without waiting for the disk.
    pub fn rename(&self, target: &Path) -> Result<()> {
        fs::rename(&self.path, target).map_err(|error| Error::io("create", target, error))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing to remove, and a failure here has no remedy.
        drop(fs::remove_file(&self.path));
    }
}

#[cfg(unix)]
fn write_all_at(file: &fs::File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_all_at(file: &fs::File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}

/// A name is durable once its directory is.
#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

#[cfg(windows)]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}
