//! What becomes of every tensor of a checkpoint: before the work a plan, after it a report.

use std::collections::BTreeMap;

use crate::format::Dtype;
use crate::scheme::Scheme;
use crate::select::{Reason, Role};

/// What becomes of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is stored as codes and scales.
    Quantized,
    /// It is copied bit for bit, for this reason.
    Kept(Reason),
    /// It is not stored: the model takes the tensor named here, which is equal, in its place.
    Tied(String),
}

/// One tensor of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSummary {
    /// Its name.
    pub name: String,
    /// Its part in the model.
    pub role: Role,
    /// Its type.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// What becomes of it.
    pub fate: Fate,
    /// Bytes in the source.
    pub bytes_before: u64,
    /// Bytes of what is stored of it.
    pub bytes_after: u64,
}

impl TensorSummary {
    /// Number of elements.
    #[must_use]
    pub fn weights(&self) -> u64 {
        self.shape.iter().map(|&dim| dim as u64).product()
    }
}

/// One safetensors file of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSummary {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Bytes of its header, which are part of the size.
    pub header_bytes: u64,
}

/// How many tensors, weights and bytes something concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tensors.
    pub tensors: u64,
    /// Their elements.
    pub weights: u64,
    /// Their bytes in the source.
    pub bytes_before: u64,
    /// The bytes stored of them.
    pub bytes_after: u64,
}

impl Totals {
    fn of<'a>(tensors: impl Iterator<Item = &'a TensorSummary>) -> Self {
        tensors.fold(Self::default(), |sum, tensor| Self {
            tensors: sum.tensors + 1,
            weights: sum.weights + tensor.weights(),
            bytes_before: sum.bytes_before + tensor.bytes_before,
            bytes_after: sum.bytes_after + tensor.bytes_after,
        })
    }

    /// Bits stored per weight; 0 where there are none.
    #[must_use]
    pub fn bits_per_weight(&self) -> f64 {
        if self.weights == 0 { 0.0 } else { self.bytes_after as f64 * 8.0 / self.weights as f64 }
    }
}

/// What becomes of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How tensors are quantized.
    pub scheme: Scheme,
    /// Every tensor of the source, by file and name.
    pub tensors: Vec<TensorSummary>,
    /// The safetensors files written. Their sizes are exact.
    pub files: Vec<FileSummary>,
}

impl Summary {
    /// All tensors together.
    #[must_use]
    pub fn total(&self) -> Totals {
        Totals::of(self.tensors.iter())
    }

    /// The quantized ones.
    #[must_use]
    pub fn quantized(&self) -> Totals {
        Totals::of(self.tensors.iter().filter(|tensor| tensor.fate == Fate::Quantized))
    }

    /// Those copied, by reason.
    #[must_use]
    pub fn kept(&self) -> BTreeMap<&Reason, Totals> {
        let mut groups: BTreeMap<&Reason, Vec<&TensorSummary>> = BTreeMap::new();
        for tensor in &self.tensors {
            if let Fate::Kept(reason) = &tensor.fate {
                groups.entry(reason).or_default().push(tensor);
            }
        }
        groups.into_iter().map(|(reason, tensors)| (reason, Totals::of(tensors.into_iter()))).collect()
    }

    /// Those not stored because an equal one is.
    #[must_use]
    pub fn tied(&self) -> Totals {
        Totals::of(self.tensors.iter().filter(|tensor| matches!(tensor.fate, Fate::Tied(_))))
    }

    /// Bytes of all files.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Bytes of all headers.
    #[must_use]
    pub fn header_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.header_bytes).sum()
    }

    /// Bytes that the quantized weights would take at 6 bits each and nothing beside.
    #[must_use]
    pub fn theory_bytes(&self) -> u64 {
        (self.quantized().weights * 6).div_ceil(8)
    }
}
