//! The floating-point types that weights and activations come in.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A floating-point element type, little-endian in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of a single: 8 exponent bits, 7 stored mantissa bits.
    BF16,
}

impl FloatType {
    /// Bytes per element.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    /// The safetensors name: `F32`, `F16` or `BF16`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
        }
    }
}

impl fmt::Display for FloatType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FloatType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "F32" | "f32" | "float32" => Ok(Self::F32),
            "F16" | "f16" | "float16" => Ok(Self::F16),
            "BF16" | "bf16" | "bfloat16" => Ok(Self::BF16),
            _ => Err(Error::unknown("floating-point type", name, "F32, F16, BF16")),
        }
    }
}
