//! How long-running work tells what it does, and is told to stop.

use std::ops::ControlFlow;

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Work begins: so many files, so many bytes to read in all.
    Begin {
        /// Safetensors files to write.
        files: usize,
        /// Bytes of tensor data to read.
        bytes: u64,
    },
    /// A file is being written.
    File {
        /// Its name.
        name: &'a str,
    },
    /// A file was finished by an earlier run and found intact.
    Kept {
        /// Its name.
        name: &'a str,
        /// Bytes that need not be read again.
        bytes: u64,
    },
    /// So many more bytes were read and dealt with.
    Bytes(u64),
}

/// Receives events, from any of the working threads.
pub trait Progress: Sync {
    /// Takes note of `event`. [`ControlFlow::Break`] stops the work: it ends with
    /// [`crate::Error::Interrupted`], and what was finished stays for the next run.
    fn report(&self, event: Event<'_>) -> ControlFlow<()>;
}

/// Silence.
impl Progress for () {
    fn report(&self, _: Event<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}
