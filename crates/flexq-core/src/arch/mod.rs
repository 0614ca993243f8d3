//! Kernels, one set per instruction set, chosen at run time.
//!
//! Every set gives the same bytes for quantization, packing and dequantization and
//! the same numbers for integer products; [`scalar`] says in plain Rust what those
//! are. Only this module and its children use intrinsics.

mod buffer;
mod out;
mod scalar;
mod stripes;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::activations::{BlockCodes, Rule};
use crate::digits::Lines;
use crate::dtype::FloatType;
use crate::error::{Error, Result};
use crate::qtensor::QTensor;
use crate::rows::FloatRows;
use crate::scheme::{Group, ScaleType, Scheme};

pub(crate) use buffer::Buffer;
pub(crate) use out::Out;
pub(crate) use stripes::{Stripe, Stripes};

/// The environment variable that restricts detection: `scalar`, `avx2`, `avx512` or `amx`.
pub const ISA_VARIABLE: &str = "FLEXQ_ISA";

/// A set of kernels, named after the instructions it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Portable Rust, the reference of all others.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, VL, DQ, VBMI, VBMI2 and VNNI.
    Avx512,
    /// AVX-512 as above and AMX's tiles of 8-bit integers.
    Amx,
}

impl Isa {
    /// Every set this program was built with, slowest first.
    pub const ALL: [Self; 4] = [Self::Scalar, Self::Avx2, Self::Avx512, Self::Amx];

    /// The name that [`ISA_VARIABLE`] takes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }

    /// Whether this processor has the instructions.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86_64::avx2::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => x86_64::avx512::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => x86_64::amx::is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The fastest available set, or the one that [`ISA_VARIABLE`] names if it is available.
    #[must_use]
    pub fn detect() -> Self {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        *DETECTED.get_or_init(|| {
            let wanted = std::env::var(ISA_VARIABLE).ok().and_then(|name| name.parse::<Self>().ok());
            wanted.filter(|isa| isa.is_available()).unwrap_or_else(|| {
                Self::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Self::Scalar)
            })
        })
    }

    pub(crate) fn kernels(self) -> &'static Kernels {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => &x86_64::avx2::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => &x86_64::avx512::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Self::Amx => &x86_64::amx::KERNELS,
            _ => &scalar::KERNELS,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| Error::unknown("instruction set", name, "scalar, avx2, avx512, amx"))
    }
}

/// Why a row could not be quantized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// The first element that is not finite.
    NonFinite { column: usize, value: f32 },
    /// The first group whose scale rounds to infinity.
    Overflow { group: usize, scale: f32 },
}

/// Memory that kernels reuse between rows and calls.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub floats: Vec<f32>,
    pub codes: Vec<i8>,
    /// Unpacked weights.
    pub panel: Buffer<u8>,
    /// Dequantized weights.
    pub weights: Buffer<f32>,
    /// Sums that wait for more columns.
    pub sums: Buffer<f32>,
    /// Scales of the panel's weights.
    pub scales: Buffer<f32>,
}

/// Packed weight rows, all of them, as kernels see them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights<'a> {
    pub packed: &'a [u8],
    pub scales: &'a [u8],
    pub columns: usize,
    pub group: Group,
    pub scale_type: ScaleType,
}

impl<'a> Weights<'a> {
    pub fn new(w: &'a QTensor) -> Self {
        let scheme = w.scheme();
        Self {
            packed: w.packed(),
            scales: w.scales(),
            columns: w.columns(),
            group: scheme.group,
            scale_type: scheme.scale_type,
        }
    }

    /// Packed codes of row `n`.
    pub fn packed_row(&self, n: usize) -> &'a [u8] {
        let bytes = crate::layout::packed_row_bytes(self.columns);
        &self.packed[n * bytes..][..bytes]
    }

    /// Columns per scale.
    pub fn scale_width(&self) -> usize {
        self.group.width(self.columns).div_ceil(self.scale_type.per_word())
    }

    /// Columns whose integer products are summed exactly before scales apply: those that
    /// share a scale, but never more than the 128 of an activation group.
    pub fn segment_width(&self) -> usize {
        segment_width(self.group) / self.scale_type.per_word()
    }

    /// Bits of scale `i` of a row, whose stored words `row` are; past the end, of the last.
    #[inline]
    pub fn scale_at(&self, row: &[u8], i: usize) -> u16 {
        let last = row.len() / 2 * self.scale_type.per_word() - 1;
        self.scale_type.scale_at(row, i.min(last))
    }

    /// Stored words of the scales of row `n`, little-endian.
    pub fn scales_row(&self, n: usize) -> &'a [u8] {
        let bytes = self.group.count(self.columns) * 2;
        &self.scales[n * bytes..][..bytes]
    }
}

/// Columns whose integer products are summed exactly before scales apply: the weight
/// group, but never more than the 128 columns of an activation group.
pub(crate) fn segment_width(group: Group) -> usize {
    match group {
        Group::Columns(columns) => columns.min(ACTIVATION_GROUP),
        Group::Row => ACTIVATION_GROUP,
    }
}

/// The most columns of a stripe of the output.
pub(crate) const MAX_STRIPE: usize = 256;

/// Columns per activation scale.
pub(crate) const ACTIVATION_GROUP: usize = 128;

/// How quantized activations lie in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Row after row.
    #[default]
    Rows,
    /// 128 columns after 128 columns, each as blocks of [`LANES`] rows side by side: four codes
    /// of each row in turn, and one scale or offset of each row in turn. A last, smaller block is
    /// filled with rows of zeros.
    Blocks,
}

/// Rows side by side in [`Layout::Blocks`].
pub(crate) const LANES: usize = 16;

/// Quantized activations `[rows, K]`, each row padded with zeros to a multiple of 128.
#[derive(Debug, Default)]
pub(crate) struct QuantizedRows {
    pub rows: usize,
    /// Consecutive rows whose products are added up to one row of the output: 1 or [`DIGITS`].
    pub parts: usize,
    /// `ceil(K / 128) * 128`.
    pub stride: usize,
    /// Columns per offset: the [`segment_width`] of the weight.
    pub segment: usize,
    pub layout: Layout,
    /// `[rows, stride]` or `[stride / 128, blocks, 32, 16, 4]`, codes in -127..=127.
    pub codes: Buffer<i8>,
    /// `[rows, stride / 128]` or `[stride / 128, blocks, 16]`, the scale of each 128 columns.
    pub scales: Buffer<f32>,
    /// `[rows, stride / segment]` or `[stride / 128, blocks, 128 / segment, 16]`: -32 times the sum of the
    /// codes of a segment, which turns a dot product with codes stored as `q + 32` into one with `q`.
    /// Empty where kernels multiply with `q`.
    pub offsets: Buffer<i32>,
}

impl QuantizedRows {
    /// Makes room for so many rows in the layout that the kernels want, which is blocks if those are
    /// returned. One row of the output for each, unless the caller says otherwise.
    pub fn resize<'a>(
        &mut self,
        kernels: &'a Kernels,
        rows: usize,
        columns: usize,
        segment: usize,
    ) -> Option<&'a Blocks> {
        let blocks = kernels.blocks.as_ref().filter(|blocks| rows >= blocks.rows);
        let lines = if blocks.is_some() { rows.next_multiple_of(LANES) } else { rows };
        self.rows = rows;
        self.parts = 1;
        self.stride = columns.next_multiple_of(ACTIVATION_GROUP);
        self.segment = segment;
        self.layout = if blocks.is_some() { Layout::Blocks } else { Layout::Rows };
        self.codes.resize(lines * self.stride);
        self.scales.resize(lines * self.stride / ACTIVATION_GROUP);
        let offsets = blocks.is_none_or(|blocks| blocks.offsets);
        self.offsets.resize(if offsets { lines * self.stride / segment } else { 0 });
        blocks
    }
}

/// Kernels for [`Layout::Blocks`].
pub(crate) struct Blocks {
    /// The fewest rows that `multiply_codes` wants in that layout.
    pub rows: usize,
    /// Whether it wants offsets.
    pub offsets: bool,
    /// Quantizes a block, from a row and a column of the activations on; the numbers are the
    /// scale of each row where rows have one each.
    pub quantize: fn(&FloatRows<'_>, usize, usize, Rule, &[f32], &mut BlockCodes<'_>),
}

/// Digits of an activation as a whole number.
pub(crate) const DIGITS: usize = 4;

/// Kernels for activations as [`digits`](crate::digits), whose products `multiply_codes` makes and adds up.
pub(crate) struct Digits {
    /// The most rows for which they are best.
    pub rows: usize,
    /// Digits of columns from the second number on of up to four rows from the first on, the largest place
    /// first; scales are NaN where numbers are not finite.
    pub split: fn(&FloatRows<'_>, usize, usize, &mut Lines),
    /// Sixteen rows of 128 codes to those of a block.
    pub interleave: fn(&[i8], &mut [i8]),
}

/// Kernels that multiply activations as sums of bf16 numbers, each of which has 8 bits: one for
/// bf16, two for f16, three for f32.
///
/// These lie as `[ceil(K / 128), blocks, terms, 64, 16]` pairs of neighbouring columns: 128 columns
/// after 128 columns, [`LANES`] rows side by side, the largest terms first; zeros fill the last
/// block and the last columns.
pub(crate) struct Terms {
    /// The fewest rows for which they are best.
    pub rows: usize,
    /// Splits a block, from a row and a column of the activations on.
    pub split: fn(&FloatRows<'_>, usize, usize, &mut [u32]),
    /// Products of the stripe's weight rows with all of them.
    pub multiply: fn(&Weights<'_>, &[u32], &mut Stripe<'_>, &mut Scratch),
}

impl Terms {
    /// Pairs of a block of activations of that type.
    pub const fn pairs(dtype: FloatType) -> usize {
        let terms = match dtype {
            FloatType::BF16 => 1,
            FloatType::F16 => 2,
            FloatType::F32 => 3,
        };
        terms * ACTIVATION_GROUP / 2 * LANES
    }
}

/// The functions of one instruction set. A table is reachable only through
/// [`Isa::kernels`] of an available set, so its functions may rely on the instructions.
pub(crate) struct Kernels {
    /// Quantizes and packs one row.
    pub quantize_row:
        fn(&Scheme, FloatType, &[u8], &mut [u8], &mut [u8], Out, &mut Scratch) -> Result<(), Fault>,
    /// Packed codes and scales of one row to floats.
    pub dequantize_row: fn(&Scheme, &[u8], &[u8], FloatType, &mut [u8], Out, &mut Scratch),
    /// Packed codes of one row to signed codes.
    pub unpack_row: fn(&[u8], &mut [i8]),
    /// Signed codes of one row, in -32..=31, to packed codes.
    pub pack_row: fn(&[i8], &mut [u8]),
    /// Floats to f32.
    pub to_f32: fn(FloatType, &[u8], &mut [f32]),
    /// Largest magnitude; NaN when an element is not finite.
    pub abs_max: fn(&[f32]) -> f32,
    /// `clamp(rne(x / scale), -limit, limit)`; the scale is positive.
    pub quantize_activations: fn(&[f32], f32, f32, &mut [i8]),
    /// How activations are laid out side by side, if ever.
    pub blocks: Option<Blocks>,
    /// A better way for few rows of A16, if there is one.
    pub digits: Option<Digits>,
    /// Products of the stripe's weight rows with quantized activations.
    pub multiply_codes: fn(&Weights<'_>, &QuantizedRows, &mut Stripe<'_>, &mut Scratch),
    /// Activations `[M, K]`, `K` given, in the order that `multiply_floats` wants.
    pub arrange_floats: fn(&[f32], usize, &mut Buffer<f32>),
    /// Products of the stripe's weight rows with arranged activations.
    pub multiply_floats: fn(&Weights<'_>, &[f32], &mut Stripe<'_>, &mut Scratch),
    /// A better way for many rows, if there is one.
    pub terms: Option<Terms>,
}
