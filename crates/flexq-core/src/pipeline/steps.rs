//! Tasks on stored tensors that several conversions share.

use super::action::Action;
use super::engine::{Input, Output, Task};
use super::source::Source;
use crate::dtype::FloatType;
use crate::format::{Description, Entry, File, FormatError, Plan, packed_name, scale_name};
use crate::layout::packed_row_bytes;

/// Takes over the strings of a header, all but our manifest, which is written anew.
pub(crate) fn copy_metadata(file: &File, plan: &mut Plan) {
    for (key, value) in file.metadata() {
        plan.set_metadata(key, value);
    }
}

/// The rows of a stored tensor.
pub(crate) fn input<'s>(file: &File, source: &'s Source, entry: &Entry, row_bytes: usize) -> Input<'s> {
    Input { source, offset: (file.header_bytes() + entry.range().start) as u64, row_bytes }
}

/// Plans to store `entry` bit for bit under `name`.
pub(crate) fn copy<'s>(
    file: &File,
    source: &'s Source,
    plan: &mut Plan,
    entry: &Entry,
    name: &str,
) -> Result<Task<'s>, FormatError> {
    let id = plan.add(name, entry.dtype(), entry.shape().to_vec())?;
    Ok(Task {
        name: entry.name().to_owned(),
        rows: entry.nbytes(),
        action: Action::Copy,
        inputs: vec![input(file, source, entry, 1)],
        outputs: vec![Output { id, row_bytes: 1 }],
    })
}

/// Plans to store the quantized tensor `name` as floats of `dtype`, or of its origin.
pub(crate) fn dequantize<'s>(
    file: &File,
    source: &'s Source,
    plan: &mut Plan,
    name: &str,
    description: &Description,
    dtype: Option<FloatType>,
) -> Result<Option<Task<'s>>, FormatError> {
    let (Some(packed), Some(scales)) = (file.entry(&packed_name(name)), file.entry(&scale_name(name))) else {
        return Ok(None); // the reader has checked that both are there
    };
    let dtype = dtype.unwrap_or(description.origin);
    let id = plan.add(name, dtype.into(), description.shape.clone())?;
    let (columns, scheme) = (description.columns(), description.scheme);
    let rows = description.shape.iter().rev().skip(1).product();
    Ok(Some(Task {
        name: name.to_owned(),
        rows,
        action: Action::Dequantize { dtype, columns, scheme },
        inputs: vec![
            input(file, source, packed, packed_row_bytes(columns)),
            input(file, source, scales, scheme.group.count(columns) * 2),
        ],
        outputs: vec![Output { id, row_bytes: columns * dtype.size() }],
    }))
}
