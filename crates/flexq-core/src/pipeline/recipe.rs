//! From a list of tensors to the files that will hold them: every name, size and place,
//! before any data is read. Planning and packing share it, so that they agree.

use super::summary::{Fate, FileSummary, Summary, TensorSummary};
use crate::format::{Description, Dtype, EntryId, FormatError, Plan};
use crate::scheme::Scheme;
use crate::select::{Candidate, Reason, Role};

/// The stored tensors made of one tensor of the source.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stored {
    /// Codes and scales.
    Quantized(EntryId, EntryId),
    /// The tensor as it is.
    Copied(EntryId),
    /// Nothing.
    Tied,
}

/// A tensor of the source and what to do with it.
#[derive(Clone, Debug)]
pub(super) struct Item<'a> {
    pub tensor: Candidate<'a>,
    pub fate: Fate,
}

impl<'a> Item<'a> {
    /// `tensor` with the decision of [`crate::select::Rules::decide`].
    pub fn new(tensor: Candidate<'a>, reason: Option<Reason>) -> Self {
        Self { tensor, fate: reason.map_or(Fate::Quantized, Fate::Kept) }
    }
}

/// A safetensors file to be written.
pub(super) struct FileRecipe {
    pub name: String,
    pub plan: Plan,
    /// For each item, in order.
    pub stored: Vec<Stored>,
}

/// Lays out the file `name` for `items`.
///
/// Tensors are added by name, so that the file does not depend on the order of the source.
pub(super) fn lay_out<'m>(
    name: &str,
    items: &[Item<'_>],
    metadata: impl Iterator<Item = (&'m String, &'m String)>,
    scheme: Scheme,
) -> Result<FileRecipe, FormatError> {
    let mut plan = Plan::new();
    // without this, transformers before version 5 refuses a file
    plan.set_metadata("format", "pt");
    for (key, value) in metadata {
        plan.set_metadata(key, value);
    }
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&item| items[item].tensor.name);
    let mut stored = vec![Stored::Tied; items.len()];
    for at in order {
        let Item { tensor: Candidate { name, dtype, shape }, fate } = &items[at];
        stored[at] = match (fate, dtype.float()) {
            (Fate::Tied(_), _) => Stored::Tied,
            (Fate::Quantized, Some(origin)) => {
                let description = Description { shape: shape.to_vec(), origin, scheme };
                let (codes, scales) = plan.add_quantized(*name, description)?;
                Stored::Quantized(codes, scales)
            }
            _ => Stored::Copied(plan.add(*name, *dtype, shape.to_vec())?),
        };
    }
    Ok(FileRecipe { name: name.to_owned(), plan, stored })
}

/// What `items` of one file become, and the file.
pub(super) fn summarize(
    summary: &mut Summary,
    recipe: &FileRecipe,
    items: &[Item<'_>],
) -> Result<(), FormatError> {
    for Item { tensor, fate } in items {
        let Candidate { name, dtype, shape } = *tensor;
        let rows_and_columns = || {
            let columns = shape.last().copied().unwrap_or(1);
            (shape.iter().rev().skip(1).product::<usize>(), columns)
        };
        let bytes_before = nbytes(dtype, shape);
        let bytes_after = match fate {
            Fate::Tied(_) => 0,
            Fate::Kept(_) => bytes_before,
            Fate::Quantized => {
                let (rows, columns) = rows_and_columns();
                let row = crate::layout::packed_row_bytes(columns) + 2 * summary.scheme.group.count(columns);
                (rows * row) as u64
            }
        };
        summary.tensors.push(TensorSummary {
            name: name.to_owned(),
            role: Role::of(name, shape),
            dtype,
            shape: shape.to_vec(),
            fate: fate.clone(),
            bytes_before,
            bytes_after,
        });
    }
    let bytes = recipe.plan.file_bytes()?;
    let header_bytes = bytes - recipe.plan.data_bytes();
    summary.files.push(FileSummary { name: recipe.name.clone(), bytes, header_bytes });
    Ok(())
}

fn nbytes(dtype: Dtype, shape: &[usize]) -> u64 {
    shape.iter().map(|&dim| dim as u64).product::<u64>() * dtype.bits() as u64 / 8
}
