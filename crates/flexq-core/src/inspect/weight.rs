//! Stored tensors put together: the codes of a module, its scales, and what else it has.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use super::levels::Levels;
use crate::checkpoint::{Checkpoint, Shard};
use crate::error::Result;
use crate::format::{Dtype, Entry, packed_name, scale_name};
use crate::scheme::BITS;
use crate::select::Role;

/// How the elements of a weight are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Storage {
    /// As they are.
    Plain(Dtype),
    /// 6-bit codes of ours, without gaps.
    Flexq,
    /// Codes of compressed-tensors without gaps, rows filled up to 32 bits.
    Dense {
        /// Bits per code.
        bits: u32,
    },
    /// Codes of compressed-tensors 0.17 and before: as many as fit whole into 32 bits.
    Words {
        /// Bits per code.
        bits: u32,
    },
    /// A byte per code.
    Int8,
}

impl Storage {
    /// Whether it consists of codes that scales go with.
    #[must_use]
    pub fn is_quantized(self) -> bool {
        !matches!(self, Self::Plain(_))
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(dtype) => dtype.fmt(f),
            Self::Flexq => f.write_str("flexq, 6 bits dense"),
            Self::Dense { bits } => write!(f, "pack-quantized, {bits} bits dense"),
            Self::Words { bits } => {
                write!(f, "pack-quantized, {} codes of {bits} bits per int32", 32 / bits)
            }
            Self::Int8 => f.write_str("int8 codes"),
        }
    }
}

/// A weight of the model.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Its name in the model.
    pub name: String,
    /// Its part there.
    pub role: Role,
    /// How its elements are stored.
    pub storage: Storage,
    /// Its logical shape.
    pub shape: Vec<usize>,
    /// Number of elements.
    pub weights: u64,
    /// Bytes of codes, or of elements stored as they are.
    pub code_bytes: u64,
    /// Bytes of scales.
    pub scale_bytes: u64,
    /// Bytes of zero points, shapes and the like.
    pub extra_bytes: u64,
    /// Levels that occur; `None` where they were not counted.
    pub levels: Option<Levels>,
    /// The file it is in.
    pub(super) shard: usize,
    /// The stored tensor of codes or elements.
    pub(super) stored: String,
}

impl Weight {
    /// Bytes of everything.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.code_bytes + self.scale_bytes + self.extra_bytes
    }

    /// Bits stored per element; 0 without elements.
    #[must_use]
    pub fn bits_per_weight(&self) -> f64 {
        if self.weights == 0 { 0.0 } else { self.bytes() as f64 * 8.0 / self.weights as f64 }
    }
}

/// What suffixes of a module's tensors mean beside its codes.
const SCALES: [&str; 3] = ["weight_scale", "scale", "scales"];
const EXTRAS: [&str; 4] = ["weight_shape", "weight_zero_point", "weight_g_idx", "zero_point"];

/// The weights of a checkpoint.
pub(super) fn collect(checkpoint: &Checkpoint, config_bits: Option<u32>) -> Result<Vec<Weight>> {
    let mut weights = Vec::new();
    let mut companions = HashSet::new();
    for (number, shard) in checkpoint.shards().iter().enumerate() {
        for entry in shard.file().entries() {
            if let Some(weight) = quantized(checkpoint, number, shard, entry, config_bits, &mut companions)? {
                weights.push(weight);
            }
        }
    }
    let codes: HashSet<String> = weights.iter().map(|weight| weight.stored.clone()).collect();
    for (number, shard) in checkpoint.shards().iter().enumerate() {
        for entry in shard.file().entries() {
            if !codes.contains(entry.name()) && !companions.contains(entry.name()) {
                let storage = Storage::Plain(entry.dtype());
                weights.push(plain(number, entry, entry.name(), entry.shape().to_vec(), storage));
            }
        }
    }
    Ok(weights)
}

fn plain(shard: usize, entry: &Entry, name: &str, shape: Vec<usize>, storage: Storage) -> Weight {
    Weight {
        name: name.to_owned(),
        role: Role::of(name, &shape),
        storage,
        weights: shape.iter().map(|&dim| dim as u64).product(),
        shape,
        code_bytes: entry.nbytes() as u64,
        scale_bytes: 0,
        extra_bytes: 0,
        levels: None,
        shard,
        stored: entry.name().to_owned(),
    }
}

/// The weight whose codes `entry` holds, if it holds any; notes the names that go with it.
fn quantized(
    checkpoint: &Checkpoint,
    number: usize,
    shard: &Shard,
    entry: &Entry,
    config_bits: Option<u32>,
    companions: &mut HashSet<String>,
) -> Result<Option<Weight>> {
    let stored = entry.name();
    let find = |name: &str| {
        checkpoint.shards().iter().find_map(|shard| shard.file().entry(name).map(|entry| (shard, entry)))
    };
    if let Some(name) = stored.strip_suffix("_packed")
        && let Some(description) = shard.file().manifest().and_then(|manifest| manifest.tensors().get(name))
        && packed_name(name) == stored
    {
        let mut weight = plain(number, entry, name, description.shape.clone(), Storage::Flexq);
        if let Some((_, scales)) = find(&scale_name(name)) {
            weight.scale_bytes = scales.nbytes() as u64;
            companions.insert(scales.name().to_owned());
        }
        return Ok(Some(weight));
    }
    let packed = stored.strip_suffix(".weight_packed").filter(|_| entry.dtype() == Dtype::I32);
    let module = packed
        .or_else(|| (entry.dtype() == Dtype::I8).then(|| stored.strip_suffix(".weight").unwrap_or(stored)));
    let Some(module) = module else { return Ok(None) };
    let own = |suffix: &str| [format!("{module}.{suffix}"), format!("{stored}_{suffix}")];
    let names_of = |suffixes: &[&str]| -> BTreeSet<String> {
        // a set: `weight_scale` of the module may be `_scale` of the stored tensor
        let names = suffixes.iter().flat_map(|suffix| own(suffix));
        names.filter(|name| name != stored && find(name).is_some()).collect()
    };
    let (scales, extras) = (names_of(&SCALES), names_of(&EXTRAS));
    let (shape, storage) = match (packed, scales.is_empty()) {
        (Some(_), _) => match layout(find(&format!("{module}.weight_shape")), entry, config_bits)? {
            Some(known) => known,
            None => return Ok(None),
        },
        (None, false) => (entry.shape().to_vec(), Storage::Int8),
        (None, true) => return Ok(None), // int8 numbers that nothing scales are not codes
    };
    let name = if packed.is_some() { format!("{module}.weight") } else { stored.to_owned() };
    let mut weight = plain(number, entry, &name, shape, storage);
    let bytes = |names: &BTreeSet<String>| -> u64 {
        names.iter().filter_map(|name| find(name)).map(|(_, entry)| entry.nbytes() as u64).sum()
    };
    (weight.scale_bytes, weight.extra_bytes) = (bytes(&scales), bytes(&extras));
    companions.extend(scales.into_iter().chain(extras));
    Ok(Some(weight))
}

/// Shape and layout of packed codes, which the number of words in a row tells.
fn layout(
    shape: Option<(&Shard, &Entry)>,
    codes: &Entry,
    config_bits: Option<u32>,
) -> Result<Option<(Vec<usize>, Storage)>> {
    let Some((shard, shape)) = shape.filter(|(_, shape)| shape.dtype() == Dtype::I64) else {
        return Ok(None);
    };
    let bytes = shard.file().bytes(shape.name())?;
    let dims: Option<Vec<usize>> =
        bytes.as_chunks::<8>().0.iter().map(|&dim| i64::from_le_bytes(dim).try_into().ok()).collect();
    let (Some(dims), Some(&words)) = (dims, codes.shape().last()) else { return Ok(None) };
    let rows_agree =
        dims.split_last().is_some_and(|(_, rows)| rows == &codes.shape()[..codes.shape().len() - 1]);
    let (Some(&columns), true) = (dims.last(), rows_agree) else { return Ok(None) };
    let bits = config_bits.unwrap_or(BITS as u32);
    if !(1..=8).contains(&bits) {
        return Ok(None);
    }
    let dense = columns.checked_mul(bits as usize).map(|bits| bits.div_ceil(32));
    let storage = if dense == Some(words) {
        Storage::Dense { bits }
    } else if columns.div_ceil(32 / bits as usize) == words {
        Storage::Words { bits }
    } else {
        return Ok(None);
    };
    Ok(Some((dims, storage)))
}
