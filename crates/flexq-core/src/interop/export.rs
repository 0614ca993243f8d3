//! From our format to that of compressed-tensors: the same bytes under other names.

use std::path::Path;

use super::config;
use super::error::InteropError;
use crate::checkpoint::{Checkpoint, ModelConfig, Shard};
use crate::error::{Error, Result};
use crate::format::{Description, Dtype, FormatError, Plan, packed_name, scale_name};
use crate::layout::packed_row_bytes;
use crate::pipeline::Progress;
use crate::pipeline::action::Action;
use crate::pipeline::engine::{Input, Output, Task};
use crate::pipeline::job::{FileJob, Job, WriteOptions, WriteReport, open_sources};
use crate::pipeline::source::Source;
use crate::pipeline::steps::{copy, copy_metadata, dequantize};
use crate::pipeline::unpack::check_is_flexq;
use crate::scheme::{BITS, Group, ScaleType, Scheme};
use crate::select::{Role, module_of};

/// Bytes of a word of the packed layout.
const WORD: usize = 4;

/// What exporting did.
#[derive(Clone, Debug)]
pub struct ExportReport {
    /// Quantized tensors that became floats again, because compressed-tensors quantizes
    /// only modules that multiply: embeddings, and a head that shares one.
    pub dequantized: Vec<String>,
    /// What it took.
    pub work: WriteReport,
}

/// Writes the packed checkpoint `input` as one of compressed-tensors (release 0.18 or later),
/// in its dense `pack-quantized` layout: a directory into a directory, a file into a file.
///
/// Codes and scales stay as they are. Stacks of experts become one tensor per expert and
/// projection, as that format wants.
///
/// # Errors
/// [`Error::Interop`] for rows that are no whole number of groups and for several group
/// sizes; otherwise as [`crate::pipeline::unpack`].
pub fn export_compressed_tensors(
    input: &Path,
    output: &Path,
    options: WriteOptions,
    progress: &dyn Progress,
) -> Result<ExportReport> {
    let checkpoint = Checkpoint::open(input)?;
    check_is_flexq(&checkpoint)?;
    let tied = checkpoint.config().is_some_and(ModelConfig::tied);
    let sources = open_sources(&checkpoint)?;
    let mut export = Export { tied, group: None, ignore: Vec::new(), dequantized: Vec::new(), head: false };
    let mut files = Vec::new();
    for (shard, source) in checkpoint.shards().iter().zip(&sources) {
        files.push(export.file(shard, source)?);
    }
    if tied && !export.head {
        export.ignore.push("lm_head".to_owned());
    }
    export.ignore.sort();
    let group = export.group.unwrap_or(Group::DEFAULT);
    let config =
        checkpoint.config().map(|model| model.with_quantization(Some(config::render(group, &export.ignore))));
    let job = Job { checkpoint: &checkpoint, files, config, card: None, recipe: "export".to_owned() };
    let work = job.run(output, options, progress)?;
    Ok(ExportReport { dequantized: export.dequantized, work })
}

/// What is known while files are looked through.
struct Export {
    tied: bool,
    group: Option<Group>,
    ignore: Vec<String>,
    dequantized: Vec<String>,
    head: bool,
}

/// Rows of packed codes and scales that become one linear layer.
struct Linear<'a> {
    module: String,
    rows: usize,
    columns: usize,
    scheme: Scheme,
    source: &'a Source,
    /// Where the first row of codes begins in the file.
    packed: u64,
    /// Where the first row of scales begins.
    scales: u64,
}

impl Export {
    fn file<'s>(&mut self, shard: &Shard, source: &'s Source) -> Result<FileJob<'s>> {
        let file = shard.file();
        let mut plan = Plan::new();
        copy_metadata(file, &mut plan);
        let mut tasks = Vec::new();
        let fault = |fault: FormatError| fault.at(shard.path());
        for name in file.names() {
            match (file.manifest().and_then(|manifest| manifest.tensors().get(name)), file.entry(name)) {
                (Some(description), _) if self.is_dense(name, description) => {
                    self.dequantized.push(name.to_owned());
                    self.note_kept(name, &description.shape);
                    tasks
                        .extend(dequantize(file, source, &mut plan, name, description, None).map_err(fault)?);
                }
                (Some(description), _) => {
                    self.check(shard.path(), name, description)?;
                    for linear in linears(shard, source, name, description) {
                        tasks.extend(linear.tasks(&mut plan).map_err(fault)?);
                    }
                }
                (None, Some(entry)) => {
                    self.note_kept(name, entry.shape());
                    tasks.push(copy(file, source, &mut plan, entry, name).map_err(fault)?);
                }
                (None, None) => {}
            }
        }
        Ok(FileJob { name: shard.name().to_owned(), plan, tasks })
    }

    /// Whether a quantized tensor has to become floats.
    fn is_dense(&self, name: &str, description: &Description) -> bool {
        match Role::of(name, &description.shape) {
            Role::LmHead => self.tied,
            Role::Linear | Role::Experts | Role::Router | Role::Tower => false,
            _ => true,
        }
    }

    /// Linear modules that stay floats are listed, since all others count as quantized.
    fn note_kept(&mut self, name: &str, shape: &[usize]) {
        let role = Role::of(name, shape);
        self.head |= role == Role::LmHead;
        if shape.len() == 2 && matches!(role, Role::Linear | Role::LmHead | Role::Router | Role::Tower) {
            self.ignore.push(module_of(name).to_owned());
        }
    }

    fn check(&mut self, path: &Path, name: &str, description: &Description) -> Result<()> {
        let (group, columns) = (description.scheme.group, description.columns());
        self.head |= Role::of(name, &description.shape) == Role::LmHead;
        let refuse = |fault| Err(Error::interop(path, fault));
        if description.scheme.scale_type == ScaleType::Pair {
            return refuse(InteropError::PairedScales { tensor: name.to_owned() });
        }
        if let Group::Columns(width) = group
            && !columns.is_multiple_of(width)
        {
            return refuse(InteropError::RaggedGroup { tensor: name.to_owned(), columns, group: width });
        }
        match self.group.replace(group) {
            Some(first) if first != group => {
                refuse(InteropError::MixedGroups { first: first.to_string(), second: group.to_string() })
            }
            _ => Ok(()),
        }
    }
}

/// The linear layers of a quantized tensor: itself, or those of a stack of experts.
fn linears<'s>(shard: &Shard, source: &'s Source, name: &str, description: &Description) -> Vec<Linear<'s>> {
    let file = shard.file();
    let (Some(packed), Some(scales)) = (file.entry(&packed_name(name)), file.entry(&scale_name(name))) else {
        return Vec::new(); // the reader has checked that both are there
    };
    let columns = description.columns();
    let start = |offset: usize| (file.header_bytes() + offset) as u64;
    let linear = |module: String, first: usize, rows: usize| Linear {
        module,
        rows,
        columns,
        scheme: description.scheme,
        source,
        packed: start(packed.range().start + first * packed_row_bytes(columns)),
        scales: start(scales.range().start + first * description.scheme.group.count(columns) * 2),
    };
    let (module, shape) = (module_of(name), description.shape.as_slice());
    let [experts, rows, _] = *shape else {
        return vec![linear(module.to_owned(), 0, shape[0])];
    };
    let (parent, leaf) = module.rsplit_once('.').unwrap_or(("", module));
    let mut linears = Vec::new();
    for expert in 0..experts {
        let mut part = |projection: &str, first: usize, rows: usize| {
            linears.push(linear(format!("{parent}.{expert}.{projection}"), first, rows));
        };
        let first = expert * rows;
        if leaf == "gate_up_proj" {
            part("gate_proj", first, rows / 2);
            part("up_proj", first + rows / 2, rows - rows / 2);
        } else {
            part(leaf, first, rows);
        }
    }
    linears
}

impl<'a> Linear<'a> {
    /// Codes, scales and shape.
    fn tasks(self, plan: &mut Plan) -> Result<[Task<'a>; 3], FormatError> {
        let Self { module, rows, columns, scheme, source, packed, scales } = self;
        let words = (columns * BITS).div_ceil(8 * WORD);
        let (row_bytes, groups) = (packed_row_bytes(columns), scheme.group.count(columns));
        let codes = plan.add(format!("{module}.weight_packed"), Dtype::I32, vec![rows, words])?;
        let scale_type = scheme.scale_type.float_type().into();
        let scale = plan.add(format!("{module}.weight_scale"), scale_type, vec![rows, groups])?;
        let shape = plan.add(format!("{module}.weight_shape"), Dtype::I64, vec![2])?;
        let task = |rows, action, input: Option<(u64, usize)>, output: Output| Task {
            name: module.clone(),
            rows,
            action,
            inputs: input
                .into_iter()
                .map(|(offset, row_bytes)| Input { source, offset, row_bytes })
                .collect(),
            outputs: vec![output],
        };
        let repitch = if row_bytes == words * WORD { Action::Copy } else { Action::Repitch { columns } };
        let dimensions = [rows, columns].into_iter().flat_map(|dim| (dim as i64).to_le_bytes()).collect();
        Ok([
            task(rows, repitch, Some((packed, row_bytes)), Output { id: codes, row_bytes: words * WORD }),
            task(rows, Action::Copy, Some((scales, groups * 2)), Output { id: scale, row_bytes: groups * 2 }),
            task(1, Action::Constant(dimensions), None, Output { id: shape, row_bytes: 16 }),
        ])
    }
}
