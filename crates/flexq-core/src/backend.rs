//! Where quantization and products are computed.

use crate::arch::{Isa, Kernels};

/// The processor, driven by one set of kernels.
///
/// The functions of this crate use [`Cpu::default`]; an explicit one serves tests and
/// benchmarks that compare sets of kernels.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    isa: Isa,
}

impl Cpu {
    /// The processor restricted to one set of kernels, or `None` if it lacks the instructions.
    #[must_use]
    pub fn with_isa(isa: Isa) -> Option<Self> {
        isa.is_available().then_some(Self { isa })
    }

    /// The set of kernels in use.
    #[must_use]
    pub fn isa(self) -> Isa {
        self.isa
    }

    pub(crate) fn kernels(self) -> &'static Kernels {
        self.isa.kernels()
    }
}

impl Default for Cpu {
    /// The fastest kernels this processor can run; see [`Isa::detect`].
    fn default() -> Self {
        Self { isa: Isa::detect() }
    }
}
