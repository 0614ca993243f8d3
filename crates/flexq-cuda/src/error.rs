//! What can go wrong on a GPU.

/// The result of fallible operations of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any failure of this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The driver's library cannot be opened.
    #[error("no NVIDIA driver: {reason}")]
    NoDriver {
        /// What the dynamic linker said.
        reason: String,
    },
    /// The driver lacks a function, or understands only older PTX.
    #[error("the NVIDIA driver is too old: it supports CUDA {found}, {needed} is needed")]
    DriverTooOld {
        /// The CUDA version of the driver, such as `11.4`; `unknown` where it does not say.
        found: String,
        /// The version that would do.
        needed: &'static str,
    },
    /// The driver found no GPU to use.
    #[error("no GPU: the driver answered {name} ({code})")]
    NoDevice {
        /// The driver's code.
        code: u32,
        /// Its name.
        name: String,
    },
    /// A device number past the last.
    #[error("GPU {ordinal}: there are {count}")]
    UnknownDevice {
        /// The number asked for.
        ordinal: usize,
        /// How many GPUs there are.
        count: usize,
    },
    /// A GPU that no kernel was built for.
    #[error("GPU {ordinal} has compute capability {major}.{minor}; 8.0 is the least that works")]
    UnsupportedDevice {
        /// Its number.
        ordinal: usize,
        /// Its compute capability.
        major: u32,
        /// The same, after the point.
        minor: u32,
    },
    /// The memory of the GPU is used up.
    #[error("out of GPU memory: {bytes} bytes asked for")]
    OutOfMemory {
        /// The size of the failed allocation.
        bytes: usize,
    },
    /// An address that kernels cannot read.
    #[error("{what}: address {address:#x} is not a multiple of {needed} bytes")]
    Alignment {
        /// Whose address.
        what: &'static str,
        /// The address.
        address: u64,
        /// The alignment needed.
        needed: u64,
    },
    /// A null address where memory was expected.
    #[error("{what}: no memory was given")]
    Null {
        /// Whose memory.
        what: &'static str,
    },
    /// A size that does not fit the others or the kernels.
    #[error("{what}: expected {expected}, found {found}")]
    Size {
        /// What was measured.
        what: &'static str,
        /// What is allowed.
        expected: String,
        /// What was given.
        found: u64,
    },
    /// A choice of kernel that cannot compute this problem.
    #[error("{config} cannot compute this product: {reason}")]
    Config {
        /// The choice.
        config: String,
        /// Why not.
        reason: String,
    },
    /// Any other answer of the driver.
    #[error("{call}: {name} ({code}): {text}")]
    Driver {
        /// The function called.
        call: &'static str,
        /// The driver's code.
        code: u32,
        /// Its name.
        name: String,
        /// Its explanation.
        text: String,
    },
}
