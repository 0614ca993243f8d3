//! From the formats of compressed-tensors to ours: every code and scale kept as it is.

use std::collections::HashMap;
use std::path::Path;

use super::config::{self, METHOD, Weights};
use super::error::InteropError;
use crate::checkpoint::{Checkpoint, ModelConfig, Shard};
use crate::dtype::FloatType;
use crate::error::{Error, Result};
use crate::format::{Description, Dtype, Entry, Plan};
use crate::layout::packed_row_bytes;
use crate::pipeline::action::Action;
use crate::pipeline::document::quantization_config;
use crate::pipeline::engine::{Output, Task};
use crate::pipeline::job::{FileJob, Job, WriteOptions, WriteReport, open_sources};
use crate::pipeline::source::Source;
use crate::pipeline::steps::{copy, copy_metadata, input};
use crate::pipeline::{Policy, Progress};
use crate::scheme::{BITS, ScaleRule, ScaleType, Scheme};
use crate::select::{Preset, Role, Rules, module_of};

/// What importing did.
#[derive(Clone, Debug)]
pub struct ImportReport {
    /// Quantized tensors whose codes were dense already.
    pub dense: usize,
    /// Quantized tensors whose codes took a byte each.
    pub from_int8: usize,
    /// Bytes of the safetensors files read.
    pub bytes_before: u64,
    /// What it took.
    pub work: WriteReport,
}

/// Reads the compressed-tensors directory `input` and writes it in our format.
///
/// It takes symmetric 6-bit integer weights, by group or by row (channel), in the layouts
/// `pack-quantized` (dense, since release 0.18) and `int-quantized` or `naive-quantized`
/// (int8). Codes and scales are kept exactly; everything else is copied.
///
/// # Errors
/// [`Error::Interop`] for anything else, naming the tensor or field: zero points, other
/// widths, the layout of release 0.17, codes beyond -32..=31; otherwise as
/// [`crate::pipeline::pack`].
pub fn import_compressed_tensors(
    input: &Path,
    output: &Path,
    options: WriteOptions,
    progress: &dyn Progress,
) -> Result<ImportReport> {
    let checkpoint = Checkpoint::open(input)?;
    let refuse = |fault| Error::interop(input, fault);
    let model = checkpoint.config().cloned().unwrap_or_default();
    let method = model.quant_method().unwrap_or("none");
    let settings = match model.quantization() {
        Some(settings) if method == METHOD => config::parse(settings).map_err(refuse)?,
        _ => return Err(refuse(InteropError::Method { found: method.to_owned() })),
    };
    let sources = open_sources(&checkpoint)?;
    let mut import = Import::new(&checkpoint, &sources, settings, model_dtype(&model));
    let files = checkpoint.shards().iter().map(|shard| import.file(shard)).collect::<Result<Vec<_>>>()?;
    if model.tied() && !import.head {
        import.kept.push("lm_head".to_owned());
    }
    let policy = Policy { default: settings.act_bits, overrides: Vec::new() };
    let rules = Rules { preset: if import.full { Preset::Full } else { Preset::Linear }, ..Rules::default() };
    let scheme = import.scheme(import.scale_type.unwrap_or_default());
    let text = model.with_quantization(Some(quantization_config(&scheme, &policy, &rules, &import.kept)));
    let job =
        Job { checkpoint: &checkpoint, files, config: Some(text), card: None, recipe: "import".to_owned() };
    let work = job.run(output, options, progress)?;
    let before = checkpoint.file_bytes();
    Ok(ImportReport { dense: import.dense, from_int8: import.from_int8, bytes_before: before, work })
}

/// The type that the model computes in.
fn model_dtype(model: &ModelConfig) -> Option<FloatType> {
    let name = model.field("dtype").or_else(|| model.field("torch_dtype"))?;
    name.as_str()?.parse().ok()
}

/// A stored tensor and where it is.
#[derive(Clone, Copy)]
struct Found<'a> {
    shard: &'a Shard,
    source: &'a Source,
    entry: &'a Entry,
}

/// What is known while files are looked through.
struct Import<'a> {
    settings: Weights,
    dtype: Option<FloatType>,
    /// Every stored tensor by name: codes and scales may be in different files.
    found: HashMap<&'a str, Found<'a>>,
    scale_type: Option<ScaleType>,
    kept: Vec<String>,
    head: bool,
    full: bool,
    dense: usize,
    from_int8: usize,
}

impl<'a> Import<'a> {
    fn new(
        checkpoint: &'a Checkpoint,
        sources: &'a [Source],
        settings: Weights,
        dtype: Option<FloatType>,
    ) -> Self {
        let mut found = HashMap::new();
        for (shard, source) in checkpoint.shards().iter().zip(sources) {
            found.extend(
                shard.file().entries().iter().map(|entry| (entry.name(), Found { shard, source, entry })),
            );
        }
        Self {
            settings,
            dtype,
            found,
            scale_type: None,
            kept: Vec::new(),
            head: false,
            full: false,
            dense: 0,
            from_int8: 0,
        }
    }

    fn scheme(&self, scale_type: ScaleType) -> Scheme {
        Scheme { group: self.settings.group, rule: ScaleRule::Imported, scale_type }
    }

    fn file(&mut self, shard: &'a Shard) -> Result<FileJob<'a>> {
        let file = shard.file();
        let mut plan = Plan::new();
        copy_metadata(file, &mut plan);
        let mut tasks = Vec::new();
        for entry in file.entries() {
            let Some(found) = self.found.get(entry.name()).copied() else { continue };
            let fault = |fault| Error::interop(shard.path(), fault);
            match self.part(entry).map_err(fault)? {
                Part::Codes(module) => tasks.extend(self.weight(&mut plan, module, found)?),
                Part::Consumed => {}
                Part::Other => {
                    self.note_kept(entry);
                    let task = copy(file, found.source, &mut plan, entry, entry.name());
                    tasks.push(task.map_err(|fault| fault.at(shard.path()))?);
                }
            }
        }
        Ok(FileJob { name: shard.name().to_owned(), plan, tasks })
    }

    /// What `entry` is to a quantized module.
    fn part<'e>(&self, entry: &'e Entry) -> Result<Part<'e>, InteropError> {
        let name = entry.name();
        let tensor = || name.to_owned();
        let has = |module: &str, part: &str| self.found.get(format!("{module}.{part}").as_str());
        if let Some(module) = name.strip_suffix(".weight_packed") {
            return Ok(Part::Codes(module));
        }
        if let Some(module) = name.strip_suffix(".weight")
            && entry.dtype() == Dtype::I8
        {
            return Ok(Part::Codes(module));
        }
        if name.ends_with(".weight_zero_point") {
            return Err(InteropError::Asymmetric { tensor: tensor() });
        }
        if name.ends_with(".weight_g_idx") {
            return Err(InteropError::Reordered { tensor: tensor() });
        }
        let consumed = [".weight_scale", ".weight_shape"].iter().any(|suffix| {
            name.strip_suffix(suffix).is_some_and(|module| {
                has(module, "weight_packed").is_some()
                    || has(module, "weight").is_some_and(|found| found.entry.dtype() == Dtype::I8)
            })
        });
        Ok(if consumed { Part::Consumed } else { Part::Other })
    }

    fn note_kept(&mut self, entry: &Entry) {
        let role = Role::of(entry.name(), entry.shape());
        self.head |= role == Role::LmHead;
        let linear = matches!(role, Role::Linear | Role::LmHead | Role::Router | Role::Tower);
        if linear && entry.shape().len() == 2 {
            self.kept.push(module_of(entry.name()).to_owned());
        }
    }

    /// Plans codes and scales of `module`, whose codes are stored as `codes`.
    fn weight(&mut self, plan: &mut Plan, module: &str, codes: Found<'a>) -> Result<[Task<'a>; 2]> {
        let path = codes.shard.path();
        let refuse = |fault| Error::interop(path, fault);
        let lookup = |part: &str| {
            let missing = format!("{module}.{part}");
            let found = self.found.get(missing.as_str()).copied();
            found.ok_or_else(|| {
                refuse(InteropError::Missing { tensor: codes.entry.name().to_owned(), missing })
            })
        };
        let scales = lookup("weight_scale")?;
        let dense = codes.entry.dtype() != Dtype::I8;
        let columns = if dense { logical_columns(lookup("weight_shape")?, codes)? } else { None };
        let [rows, stored] = *codes.entry.shape() else { return Err(unexpected(codes, "a matrix")) };
        let columns = columns.unwrap_or(stored);
        let scale_type = self.scale_type(scales)?;
        let scheme = self.scheme(scale_type);
        let groups = scheme.group.count(columns);
        if scales.entry.shape() != [rows, groups] {
            return Err(unexpected(scales, &format!("of shape [{rows}, {groups}]")));
        }
        if dense {
            check_words(codes, stored, columns).map_err(refuse)?;
            self.dense += 1;
        } else {
            self.from_int8 += 1;
        }
        let name = format!("{module}.weight");
        let role = Role::of(&name, &[rows, columns]);
        self.head |= role == Role::LmHead;
        self.full |= role == Role::LmHead;

        let origin = self.dtype.unwrap_or(scale_type.float_type());
        let description = Description { shape: vec![rows, columns], origin, scheme };
        let (packed_id, scale_id) = plan.add_quantized(name, description).map_err(|fault| fault.at(path))?;
        let row_bytes = packed_row_bytes(columns);
        let action = match dense {
            true if stored * 4 == row_bytes => Action::Copy,
            true => Action::Repitch { columns },
            false => Action::PackCodes { columns },
        };
        let narrow = scales.entry.dtype() == Dtype::F32;
        let task = |found: Found<'a>, action, source_row: usize, output| Task {
            name: found.entry.name().to_owned(),
            rows,
            action,
            inputs: vec![input(found.shard.file(), found.source, found.entry, source_row)],
            outputs: vec![output],
        };
        let scale_row = groups * if narrow { 4 } else { 2 };
        let scale_action = if narrow { Action::Narrow(scale_type) } else { Action::Copy };
        let stored_row = if dense { stored * 4 } else { stored };
        Ok([
            task(codes, action, stored_row, Output { id: packed_id, row_bytes }),
            task(scales, scale_action, scale_row, Output { id: scale_id, row_bytes: groups * 2 }),
        ])
    }

    /// The 16-bit type that holds `scales` exactly.
    fn scale_type(&mut self, scales: Found<'a>) -> Result<ScaleType> {
        let scale_type = match scales.entry.dtype() {
            Dtype::F16 => ScaleType::F16,
            Dtype::BF16 => ScaleType::BF16,
            Dtype::F32 => {
                let bytes = scales.shard.file().bytes(scales.entry.name())?;
                let exact = |scale_type: ScaleType| {
                    bytes.as_chunks::<4>().0.iter().all(|&bytes| {
                        let scale = f32::from_le_bytes(bytes);
                        scale_type.from_bits(scale_type.to_bits(scale)).to_bits() == scale.to_bits()
                    })
                };
                let tensor = scales.entry.name().to_owned();
                [ScaleType::F16, ScaleType::BF16]
                    .into_iter()
                    .find(|&scale_type| exact(scale_type))
                    .ok_or_else(|| Error::interop(scales.shard.path(), InteropError::Scales { tensor }))?
            }
            _ => return Err(unexpected(scales, "F16, BF16 or F32")),
        };
        self.scale_type = Some(scale_type);
        Ok(scale_type)
    }
}

/// What a stored tensor is to a quantized module.
enum Part<'e> {
    /// Its codes.
    Codes(&'e str),
    /// Its scales or shape, dealt with together with the codes.
    Consumed,
    /// Something else.
    Other,
}

fn unexpected(found: Found<'_>, expected: &str) -> Error {
    let tensor = found.entry.name().to_owned();
    let is = format!("{} {:?}", found.entry.dtype(), found.entry.shape());
    Error::interop(
        found.shard.path(),
        InteropError::Tensor { tensor, found: is, expected: expected.to_owned() },
    )
}

/// The columns that `weight_shape` tells.
fn logical_columns(shape: Found<'_>, codes: Found<'_>) -> Result<Option<usize>> {
    let bytes = shape.shard.file().bytes(shape.entry.name())?;
    let dims: Option<Vec<usize>> = match shape.entry.dtype() {
        Dtype::I64 => {
            bytes.as_chunks::<8>().0.iter().map(|&b| i64::from_le_bytes(b).try_into().ok()).collect()
        }
        Dtype::I32 => {
            bytes.as_chunks::<4>().0.iter().map(|&b| i32::from_le_bytes(b).try_into().ok()).collect()
        }
        _ => None,
    };
    match (dims.as_deref(), codes.entry.dtype()) {
        (Some([rows, columns]), Dtype::I32) if codes.entry.shape().first() == Some(rows) => {
            Ok(Some(*columns))
        }
        (_, Dtype::I32) => Err(unexpected(shape, "the shape of a matrix with as many rows as the codes")),
        _ => Err(unexpected(codes, "I32")),
    }
}

/// Tells the dense layout from the older one, which has the same name.
fn check_words(codes: Found<'_>, words: usize, columns: usize) -> Result<(), InteropError> {
    let expected = columns.saturating_mul(BITS).div_ceil(32);
    let tensor = codes.entry.name().to_owned();
    match words {
        found if found == expected => Ok(()),
        found if found == columns.div_ceil(5) => Err(InteropError::FiveToAWord { tensor, expected, found }),
        found => Err(InteropError::Tensor {
            tensor,
            found: format!("{found} words wide"),
            expected: format!("{expected} words for {columns} columns"),
        }),
    }
}
