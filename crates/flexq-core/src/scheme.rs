//! How a weight matrix is quantized: group size, scale rule, scale type.

use std::fmt;
use std::str::FromStr;

use crate::dtype::FloatType;
use crate::error::{Error, Result};

/// Bits per stored code.
pub const BITS: usize = 6;
/// Smallest code.
pub const CODE_MIN: i32 = -32;
/// Largest code.
pub const CODE_MAX: i32 = 31;

/// Columns that share one scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// 32, 64, 128 or 256 consecutive columns; the last group of a row may be shorter.
    Columns(usize),
    /// One scale for the whole row.
    Row,
}

impl Group {
    /// The group of the FlexQ paper (arXiv 2508.04405): 128 columns.
    pub const DEFAULT: Self = Self::Columns(128);

    /// A group of `columns` columns.
    ///
    /// # Errors
    /// [`Error::Unknown`] unless `columns` is 32, 64, 128 or 256.
    pub fn columns(columns: usize) -> Result<Self> {
        match columns {
            32 | 64 | 128 | 256 => Ok(Self::Columns(columns)),
            _ => Err(Error::unknown("group size", columns, "32, 64, 128, 256, row")),
        }
    }

    /// Columns per group in a row of `k` columns (at least 1, so that it may divide).
    #[must_use]
    pub fn width(self, k: usize) -> usize {
        match self {
            Self::Columns(columns) => columns,
            Self::Row => k.max(1),
        }
    }

    /// Groups in a row of `k` columns.
    #[must_use]
    pub fn count(self, k: usize) -> usize {
        k.div_ceil(self.width(k))
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Columns(columns) => columns.fmt(f),
            Self::Row => f.write_str("row"),
        }
    }
}

impl FromStr for Group {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "row" {
            return Ok(Self::Row);
        }
        text.parse()
            .ok()
            .and_then(|columns| Self::columns(columns).ok())
            .ok_or_else(|| Error::unknown("group size", text, "32, 64, 128, 256, row"))
    }
}

/// How the scale of a group is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaleRule {
    /// `max|w| / 31`: the rule of the FlexQ paper.
    AbsMax31,
    /// `m / -32` for the element `m` of largest magnitude: its sign puts `m` on
    /// code -32, so all 64 levels are used. Of `+m` and `-m` the positive one counts.
    AbsMax32s,
    /// The candidate around `m / -32` with the least squared error.
    Mse,
    /// None of ours: codes and scales came together from another program's file.
    Imported,
}

impl ScaleRule {
    /// Every rule to quantize by, in order of cost.
    pub const ALL: [Self; 3] = [Self::AbsMax31, Self::AbsMax32s, Self::Mse];

    /// The stored name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AbsMax31 => "absmax31",
            Self::AbsMax32s => "absmax32s",
            Self::Mse => "mse",
            Self::Imported => "imported",
        }
    }
}

impl fmt::Display for ScaleRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ScaleRule {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .chain([Self::Imported])
            .find(|rule| rule.name() == name)
            .ok_or_else(|| Error::unknown("scale rule", name, "absmax31, absmax32s, mse"))
    }
}

/// The 16-bit type that scales are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ScaleType {
    /// Half precision, the default.
    #[default]
    F16,
    /// bfloat16: for weights whose scales leave the range of half precision.
    BF16,
}

impl ScaleType {
    /// The same type among all floating-point types.
    #[must_use]
    pub const fn float_type(self) -> FloatType {
        match self {
            Self::F16 => FloatType::F16,
            Self::BF16 => FloatType::BF16,
        }
    }

    /// Rounds to the type (half to even) and gives the stored bits.
    #[must_use]
    pub fn to_bits(self, value: f32) -> u16 {
        match self {
            Self::F16 => half::f16::from_f32(value).to_bits(),
            Self::BF16 => half::bf16::from_f32(value).to_bits(),
        }
    }

    /// The exact value of stored bits.
    #[must_use]
    pub fn from_bits(self, bits: u16) -> f32 {
        match self {
            Self::F16 => half::f16::from_bits(bits).to_f32(),
            Self::BF16 => half::bf16::from_bits(bits).to_f32(),
        }
    }
}

/// A complete quantization recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scheme {
    /// Columns per scale.
    pub group: Group,
    /// How scales are found.
    pub rule: ScaleRule,
    /// How scales are stored.
    pub scale_type: ScaleType,
}

impl Default for Scheme {
    fn default() -> Self {
        Self { group: Group::DEFAULT, rule: ScaleRule::AbsMax32s, scale_type: ScaleType::F16 }
    }
}
