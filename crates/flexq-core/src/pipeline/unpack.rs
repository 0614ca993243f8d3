//! Unpacking: a packed checkpoint in, floats that every tool reads out.

use std::path::Path;

use super::engine::Task;
use super::error::PipelineError;
use super::job::{FileJob, Job, WriteOptions, WriteReport, open_sources};
use super::progress::Progress;
use super::source::Source;
use super::steps::{copy, copy_metadata, dequantize};
use crate::checkpoint::{Checkpoint, ModelConfig};
use crate::dtype::FloatType;
use crate::error::{Error, Result};
use crate::format::{File, FormatError, Plan};

/// Unpacks the checkpoint `input` into `output`: a directory into a directory, a file into a file.
///
/// Quantized tensors become floats of `dtype`, or of the type they were quantized from:
/// the nearest to code times scale. Everything else is copied; config.json loses its
/// `quantization_config`.
///
/// # Errors
/// [`PipelineError::NotFlexq`] for a checkpoint without quantized tensors; otherwise as
/// [`super::pack`].
pub fn unpack(
    input: &Path,
    output: &Path,
    dtype: Option<FloatType>,
    options: WriteOptions,
    progress: &dyn Progress,
) -> Result<WriteReport> {
    let checkpoint = Checkpoint::open(input)?;
    check_is_flexq(&checkpoint)?;
    let sources = open_sources(&checkpoint)?;
    let mut files = Vec::new();
    for (shard, source) in checkpoint.shards().iter().zip(&sources) {
        let (plan, tasks) =
            unpack_file(shard.file(), source, dtype).map_err(|fault| fault.at(shard.path()))?;
        files.push(FileJob { name: shard.name().to_owned(), plan, tasks });
    }
    let job = Job {
        checkpoint: &checkpoint,
        files,
        config: checkpoint.config().map(|config: &ModelConfig| config.with_quantization(None)),
        card: None,
        recipe: format!("unpack {dtype:?}"),
    };
    job.run(output, options, progress)
}

/// Refuses a checkpoint that holds no quantized tensor of ours.
pub(crate) fn check_is_flexq(checkpoint: &Checkpoint) -> Result<()> {
    let mut manifests = checkpoint.shards().iter().filter_map(|shard| shard.file().manifest());
    if manifests.any(|manifest| !manifest.tensors().is_empty()) {
        return Ok(());
    }
    Err(Error::pipeline(checkpoint.path(), PipelineError::NotFlexq))
}

fn unpack_file<'s>(
    file: &File,
    source: &'s Source,
    dtype: Option<FloatType>,
) -> Result<(Plan, Vec<Task<'s>>), FormatError> {
    let mut plan = Plan::new();
    copy_metadata(file, &mut plan);
    let mut tasks = Vec::new();
    for name in file.names() {
        let description = file.manifest().and_then(|manifest| manifest.tensors().get(name));
        match (description, file.entry(name)) {
            (Some(description), _) => {
                tasks.extend(dequantize(file, source, &mut plan, name, description, dtype)?);
            }
            (None, Some(entry)) => tasks.push(copy(file, source, &mut plan, entry, name)?),
            (None, None) => {}
        }
    }
    Ok((plan, tasks))
}
