//! Where the bytes of a checkpoint go, ours or anybody's.
//!
//! Stored tensors are put together to weights (codes, scales and what else belongs to one
//! module), the codes are looked at to see which levels really occur, and every byte of the
//! files is given a cause.

mod account;
mod levels;
mod weight;

use std::path::Path;

pub use account::{Cause, Finding};
pub use levels::Levels;
pub use weight::{Storage, Weight};

use crate::checkpoint::{Checkpoint, ModelConfig};
use crate::error::Result;
use crate::scheme::BITS;
use crate::threads::{Threads, map};

/// A checkpoint looked through.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// `quant_method` of its configuration, or `flexq` for a file of ours without one.
    pub method: Option<String>,
    /// Bits per code that the configuration tells.
    pub config_bits: Option<u32>,
    /// Safetensors files.
    pub files: usize,
    /// Bytes of all of them.
    pub file_bytes: u64,
    /// Bytes of their headers.
    pub header_bytes: u64,
    /// Its weights, by file and place.
    pub weights: Vec<Weight>,
}

impl Inspection {
    /// What the bytes are for. The sum is that of the files.
    #[must_use]
    pub fn causes(&self) -> Vec<(Cause, u64)> {
        account::causes(self)
    }

    /// What could be better, and by how much.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        account::findings(self)
    }

    /// Of the quantized weights: bytes of their codes at the width that the configuration tells
    /// (6 bits without one), and bytes stored for them.
    #[must_use]
    pub fn theory_and_stored(&self) -> (u64, u64) {
        let bits = u64::from(self.config_bits.unwrap_or(BITS as u32));
        let quantized = self.weights.iter().filter(|weight| weight.storage.is_quantized());
        quantized.fold((0, 0), |(theory, stored), weight| {
            (theory + (weight.weights * bits).div_ceil(8), stored + weight.bytes())
        })
    }

    /// Bits per weight over everything stored, headers included; 0 without weights.
    #[must_use]
    pub fn bits_per_weight(&self) -> f64 {
        let weights: u64 = self.weights.iter().map(|weight| weight.weights).sum();
        if weights == 0 { 0.0 } else { self.file_bytes as f64 * 8.0 / weights as f64 }
    }
}

/// Looks through a file or directory. With `scan`, all codes and 16-bit floats are read, in
/// parallel, to count the levels that occur; without, only headers are.
///
/// # Errors
/// Those of [`Checkpoint::open`].
pub fn inspect(path: &Path, scan: bool) -> Result<Inspection> {
    let checkpoint = Checkpoint::open(path)?;
    let config_bits = checkpoint.config().and_then(config_bits);
    let mut weights = weight::collect(&checkpoint, config_bits)?;
    if scan {
        let levels = map(Threads::ALL, &weights, |weight| {
            levels::count(checkpoint.shards()[weight.shard].file(), weight)
        });
        for (weight, levels) in weights.iter_mut().zip(levels) {
            weight.levels = levels?;
        }
    }
    let method = checkpoint.config().and_then(ModelConfig::quant_method).map(str::to_owned);
    let ours = weights.iter().any(|weight| weight.storage == Storage::Flexq);
    Ok(Inspection {
        method: method.or_else(|| ours.then(|| "flexq".to_owned())),
        config_bits: config_bits.or_else(|| ours.then_some(BITS as u32)),
        files: checkpoint.shards().len(),
        file_bytes: checkpoint.file_bytes(),
        header_bytes: checkpoint.shards().iter().map(|shard| shard.file().header_bytes() as u64).sum(),
        weights,
    })
}

/// The width that a configuration of flexq, compressed-tensors or another tool tells.
fn config_bits(config: &ModelConfig) -> Option<u32> {
    let quantization = config.quantization()?;
    let groups = quantization.get("config_groups").and_then(serde_json::Value::as_object);
    let of_group = groups
        .into_iter()
        .flat_map(|groups| groups.values())
        .find_map(|group| group.get("weights")?.get("num_bits")?.as_u64());
    let bits = of_group.or_else(|| quantization.get("bits")?.as_u64())?;
    u32::try_from(bits).ok().filter(|bits| (1..=16).contains(bits))
}
