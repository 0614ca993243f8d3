//! How a weight matrix is quantized: group size, scale rule, scale type.

use std::fmt;
use std::str::FromStr;

use crate::dtype::FloatType;
use crate::error::{Error, Result};
use crate::pair;

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

/// How scales are stored: one 16-bit word per group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ScaleType {
    /// Half precision, the default.
    #[default]
    F16,
    /// bfloat16: for weights whose scales leave the range of half precision.
    BF16,
    /// Two scales in one word, one for each half of the group: see [`pair`](crate::pair).
    Pair,
}

impl ScaleType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::F16, Self::BF16, Self::Pair];

    /// The stored name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Pair => "PAIR",
        }
    }

    /// The floating-point type that holds every such scale exactly.
    #[must_use]
    pub const fn float_type(self) -> FloatType {
        match self {
            Self::F16 | Self::Pair => FloatType::F16,
            Self::BF16 => FloatType::BF16,
        }
    }

    /// Rounds a scale to [`float_type`](Self::float_type), half to even, and gives its bits.
    #[must_use]
    pub fn to_bits(self, value: f32) -> u16 {
        match self.float_type() {
            FloatType::BF16 => half::bf16::from_f32(value).to_bits(),
            _ => half::f16::from_f32(value).to_bits(),
        }
    }

    /// The exact value of the bits of a scale.
    #[must_use]
    pub fn from_bits(self, bits: u16) -> f32 {
        match self.float_type() {
            FloatType::BF16 => half::bf16::from_bits(bits).to_f32(),
            _ => half::f16::from_bits(bits).to_f32(),
        }
    }

    /// Scales per stored word.
    #[must_use]
    pub const fn per_word(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 1,
            Self::Pair => 2,
        }
    }

    /// The bits of scale `i` among the stored words of a row, little-endian.
    #[inline]
    pub(crate) fn scale_at(self, words: &[u8], i: usize) -> u16 {
        let word = |i: usize| u16::from_le_bytes([words[2 * i], words[2 * i + 1]]);
        match self {
            Self::F16 | Self::BF16 => word(i),
            Self::Pair => pair::unpack(word(i / 2), i % 2),
        }
    }
}

impl fmt::Display for ScaleType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ScaleType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|scale_type| scale_type.name() == name)
            .ok_or_else(|| Error::unknown("type of scales", name, "F16, BF16, PAIR"))
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

impl Scheme {
    /// Columns per scale in a row of `k` columns: a group, or half of it.
    #[must_use]
    pub fn scale_width(&self, k: usize) -> usize {
        self.group.width(k).div_ceil(self.scale_type.per_word())
    }

    /// Scales of a row of `k` columns.
    #[must_use]
    pub fn scale_count(&self, k: usize) -> usize {
        k.div_ceil(self.scale_width(k))
    }

    /// Checks that group and scale type go together.
    ///
    /// # Errors
    /// [`Error::Unknown`] for pairs in groups other than 32, 64 or 128 columns.
    pub fn check(&self) -> Result<()> {
        match (self.scale_type, self.group) {
            (ScaleType::Pair, Group::Row | Group::Columns(256)) => {
                Err(Error::unknown("group size of paired scales", self.group, "32, 64, 128"))
            }
            _ => Ok(()),
        }
    }
}

impl Default for Scheme {
    fn default() -> Self {
        Self { group: Group::DEFAULT, rule: ScaleRule::AbsMax32s, scale_type: ScaleType::F16 }
    }
}
