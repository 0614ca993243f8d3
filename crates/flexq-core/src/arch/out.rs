//! Where results go.

/// Whether results are written into the caches or past them.
///
/// A line that is written past the caches, as a whole, need not be read first, which is a
/// third of the traffic of dequantizing. That is a wish: kernels do it where addresses allow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Out {
    Cached,
    Streamed,
}

impl Out {
    /// For results of `bytes` in all: as a rule, those that would not stay in the caches go
    /// past them.
    pub fn of(bytes: usize) -> Self {
        const CACHED: usize = 16 << 20;
        if bytes > CACHED { Self::Streamed } else { Self::Cached }
    }

    /// Streamed stores come in any order; what follows this comes after them. A thread calls
    /// it when it has written its share.
    pub fn finish(self) {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Streamed {
            // SAFETY: every x86-64 processor has this instruction.
            unsafe { std::arch::x86_64::_mm_sfence() };
        }
    }
}
