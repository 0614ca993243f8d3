//! A cause for every byte, and what could be better.

use std::collections::BTreeMap;
use std::fmt;

use super::Inspection;
use super::weight::{Storage, Weight};
use crate::format::Dtype;
use crate::layout::packed_row_bytes;
use crate::scheme::Group;
use crate::select::Role;

/// What bytes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Codes, at so many bits each: the theory.
    Codes {
        /// Bits per code.
        bits: u32,
    },
    /// Bits of a byte that a code does not need.
    BytePadding,
    /// Bits of an int32 that its codes leave.
    WordPadding,
    /// Bits after the last code of a row.
    RowPadding,
    /// Scales of groups.
    Scales,
    /// Zero points, shapes and orders of columns.
    Extras,
    /// Tensors that are not quantized.
    Plain(Role, Dtype),
    /// Headers of files.
    Headers,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Codes { bits } => write!(f, "codes at {bits} bits"),
            Self::BytePadding => f.write_str("padding of codes to bytes"),
            Self::WordPadding => f.write_str("padding of codes to int32"),
            Self::RowPadding => f.write_str("padding of rows"),
            Self::Scales => f.write_str("scales"),
            Self::Extras => f.write_str("zero points and shapes"),
            Self::Plain(role, dtype) => write!(f, "{role} in {dtype}"),
            Self::Headers => f.write_str("headers"),
        }
    }
}

/// The width of the codes of a quantized weight: what the configuration says, else what
/// the layout says, else what the codes need.
fn code_bits(weight: &Weight, config_bits: Option<u32>) -> u32 {
    match weight.storage {
        Storage::Flexq => crate::scheme::BITS as u32,
        Storage::Dense { bits } | Storage::Words { bits } => bits,
        Storage::Int8 | Storage::Plain(_) => config_bits
            .filter(|&bits| bits <= 8)
            .or_else(|| weight.levels.and_then(super::Levels::code_bits))
            .unwrap_or(8),
    }
}

/// Bytes of `weight` beyond its codes at their width.
fn padding(weight: &Weight, bits: u32) -> (u64, u64) {
    let theory = (weight.weights * u64::from(bits)).div_ceil(8);
    (theory.min(weight.code_bytes), weight.code_bytes.saturating_sub(theory))
}

pub(super) fn causes(inspection: &Inspection) -> Vec<(Cause, u64)> {
    let mut causes: BTreeMap<Cause, u64> = BTreeMap::new();
    let mut add = |cause, bytes: u64| *causes.entry(cause).or_default() += bytes;
    for weight in &inspection.weights {
        if !weight.storage.is_quantized() {
            let Storage::Plain(dtype) = weight.storage else { continue };
            add(Cause::Plain(weight.role, dtype), weight.code_bytes);
            continue;
        }
        let bits = code_bits(weight, inspection.config_bits);
        let (theory, rest) = padding(weight, bits);
        add(Cause::Codes { bits }, theory);
        let cause = match weight.storage {
            Storage::Int8 => Cause::BytePadding,
            Storage::Words { .. } => Cause::WordPadding,
            _ => Cause::RowPadding,
        };
        add(cause, rest);
        add(Cause::Scales, weight.scale_bytes);
        add(Cause::Extras, weight.extra_bytes);
    }
    add(Cause::Headers, inspection.header_bytes);
    causes.into_iter().filter(|&(_, bytes)| bytes > 0).collect()
}

/// Something that takes more than it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// Codes of fewer than 8 bits take a byte each.
    Int8Codes {
        /// Tensors.
        tensors: usize,
        /// Bits that the codes need.
        bits: u32,
        /// Bytes that dense packing saves.
        saves: u64,
    },
    /// The layout of compressed-tensors 0.17 and before.
    Words {
        /// Tensors.
        tensors: usize,
        /// Bits per code.
        bits: u32,
        /// Bytes that dense packing saves.
        saves: u64,
    },
    /// Weights that `flexq-pack pack` would quantize.
    Floats {
        /// Tensors.
        tensors: usize,
        /// Their bytes.
        bytes: u64,
        /// Bytes that 6 bits in groups of 128 would save, in linear layers and experts.
        saves: u64,
    },
    /// Embeddings and heads as floats.
    FloatVocabulary {
        /// Tensors.
        tensors: usize,
        /// Their bytes.
        bytes: u64,
        /// Bytes that 6 bits in groups of 128 would save.
        saves: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int8Codes { tensors, bits, saves } => write!(
                f,
                "{tensors} tensors store {bits}-bit codes as int8, a byte each: dense packing saves {saves} bytes"
            ),
            Self::Words { tensors, bits, saves } => write!(
                f,
                "{tensors} tensors store {} codes of {bits} bits per int32, as compressed-tensors 0.17 did: dense packing saves {saves} bytes",
                32 / bits
            ),
            Self::Floats { tensors, bytes, saves } => write!(
                f,
                "{tensors} linear layers are floats of {bytes} bytes: 6 bits in groups of 128 save {saves}"
            ),
            Self::FloatVocabulary { tensors, bytes, saves } => write!(
                f,
                "{tensors} embeddings or heads are floats of {bytes} bytes: 6 bits in groups of 128 save {saves}"
            ),
        }
    }
}

pub(super) fn findings(inspection: &Inspection) -> Vec<Finding> {
    let all = inspection.weights.iter();
    let mut findings = Vec::new();
    let by_storage = |is: fn(Storage) -> bool| -> (usize, u32, u64) {
        let weights = inspection.weights.iter().filter(|weight| is(weight.storage));
        weights.fold((0, 0, 0), |(tensors, widest, saves), weight| {
            let bits = code_bits(weight, inspection.config_bits);
            (tensors + 1, widest.max(bits), saves + padding(weight, bits).1)
        })
    };
    let (tensors, bits, saves) = by_storage(|storage| storage == Storage::Int8);
    if tensors > 0 && bits < 8 {
        findings.push(Finding::Int8Codes { tensors, bits, saves });
    }
    let (tensors, bits, saves) = by_storage(|storage| matches!(storage, Storage::Words { .. }));
    if saves > 0 {
        findings.push(Finding::Words { tensors, bits, saves });
    }
    let floats = |roles: &[Role]| {
        let plain = all.clone().filter(|weight| {
            roles.contains(&weight.role)
                && weight.shape.len() >= 2
                && matches!(weight.storage, Storage::Plain(dtype) if dtype.float().is_some())
        });
        plain.fold((0, 0, 0), |(tensors, bytes, saves), weight| {
            (
                tensors + 1,
                bytes + weight.code_bytes,
                saves + weight.code_bytes.saturating_sub(packed_bytes(weight)),
            )
        })
    };
    let (tensors, bytes, saves) = floats(&[Role::Linear, Role::Experts]);
    if tensors > 0 {
        findings.push(Finding::Floats { tensors, bytes, saves });
    }
    let (tensors, bytes, saves) = floats(&[Role::Embedding, Role::LmHead]);
    if tensors > 0 {
        findings.push(Finding::FloatVocabulary { tensors, bytes, saves });
    }
    findings
}

/// What a float weight would take in our format.
fn packed_bytes(weight: &Weight) -> u64 {
    let columns = weight.shape.last().copied().unwrap_or(0);
    let rows: u64 = weight.shape.iter().rev().skip(1).map(|&dim| dim as u64).product();
    rows * (packed_row_bytes(columns) + 2 * Group::DEFAULT.count(columns)) as u64
}
