//! Exit codes, and which failure gives which.

use flexq_core::Error;

/// What `flexq-pack` tells its caller. `docs/cli.md` lists these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Done.
    Success = 0,
    /// A check found damage.
    Damaged = 1,
    /// Options that make no sense, alone or with this input.
    Usage = 2,
    /// An input that is malformed, of a kind not supported, or holds values that have no
    /// 6-bit form.
    Input = 3,
    /// A file that cannot be read or written: missing, not permitted, disk full.
    Io = 4,
    /// Interrupted.
    Interrupted = 130,
}

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The work failed.
    #[error(transparent)]
    Core(#[from] Error),
    /// Standard output failed.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] std::io::Error),
}

impl Failure {
    /// The exit code that tells it.
    pub fn code(&self) -> Code {
        match self {
            // who reads our output has seen enough, as in `flexq-pack inspect x | head`
            Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Code::Success,
            Self::Output(_) | Self::Core(Error::Io { .. }) => Code::Io,
            Self::Core(Error::Interrupted) => Code::Interrupted,
            Self::Core(Error::Select(_) | Error::Unknown { .. }) => Code::Usage,
            Self::Core(Error::Pipeline { fault, .. }) if fault.is_usage() => Code::Usage,
            Self::Core(_) => Code::Input,
        }
    }
}
