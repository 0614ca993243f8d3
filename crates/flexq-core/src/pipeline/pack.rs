//! Packing: a float checkpoint in, a 6-bit one of the same kind out.

use std::fmt;
use std::path::Path;

use serde_json::Value;

use super::action::Action;
use super::document::quantization_config;
use super::engine::{Input, Output, Task};
use super::error::PipelineError;
use super::job::{FileJob, Job, WriteOptions, WriteReport, open_sources};
use super::policy::Policy;
use super::progress::Progress;
use super::recipe::{FileRecipe, Item, Stored, lay_out, summarize};
use super::source::Source;
use super::summary::{Fate, Summary};
use super::{card, output, tied};
use crate::checkpoint::{self, Checkpoint, CheckpointError, ModelConfig, SINGLE, Shard};
use crate::error::{Error, Result};
use crate::format::Entry;
use crate::layout::packed_row_bytes;
use crate::plan::tensors_of;
use crate::scheme::Scheme;
use crate::select::{Candidate, Role, Rules, check_matched, module_of};

/// How to pack.
#[derive(Clone, Debug, Default)]
pub struct PackOptions {
    /// Which tensors are quantized.
    pub rules: Rules,
    /// How they are quantized.
    pub scheme: Scheme,
    /// What config.json says about activations.
    pub policy: Policy,
    /// How the output is written.
    pub write: WriteOptions,
}

/// What packing did.
#[derive(Clone, Debug)]
pub struct PackReport {
    /// What became of every tensor, and the files.
    pub summary: Summary,
    /// What it took.
    pub work: WriteReport,
}

/// What the sizes of a plan are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanSource {
    /// The headers of a checkpoint.
    Weights,
    /// A configuration alone.
    Config,
}

impl fmt::Display for PlanSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Weights => "the headers of its weights",
            Self::Config => "the configuration",
        })
    }
}

/// What [`pack`] would make of `input`: by [`plan_checkpoint`] where there are weights, else
/// by [`plan_config`].
///
/// # Errors
/// Those of the two.
pub fn plan(input: &Path, options: &PackOptions) -> Result<(Summary, PlanSource)> {
    let from_config = || Ok((plan_config(input, options)?, PlanSource::Config));
    if input.extension().is_some_and(|extension| extension == "json") {
        return from_config();
    }
    match plan_checkpoint(input, options) {
        Err(Error::Checkpoint { fault: CheckpointError::NoWeights, .. }) => from_config(),
        planned => Ok((planned?, PlanSource::Weights)),
    }
}

/// What [`pack`] would make of a checkpoint on disk: its exact sizes, from headers alone
/// (and, where a head is stored beside the embedding it is tied to, from comparing the two).
///
/// # Errors
/// Those of [`Checkpoint::open`] and [`Rules::decide`]; [`PipelineError::Quantized`].
pub fn plan_checkpoint(input: &Path, options: &PackOptions) -> Result<Summary> {
    let checkpoint = Checkpoint::open(input)?;
    Ok(Decided::new(&checkpoint, options)?.summary)
}

/// What [`pack`] would make of the model that a configuration describes, saved as one file.
///
/// `path` is a `config.json` or the directory that holds it. Sizes are exact, that of the
/// header too, if the weights are in one `model.safetensors` without metadata of its own.
///
/// # Errors
/// [`Error::Plan`] when the configuration does not tell, those of [`Rules::decide`].
pub fn plan_config(path: &Path, options: &PackOptions) -> Result<Summary> {
    let config = checkpoint::read_config(path)?;
    let fault = |fault| Error::Plan { path: path.to_owned(), fault };
    let (dtype, tensors) = tensors_of(&config).map_err(fault)?;
    let candidates: Vec<_> = tensors
        .iter()
        .map(|tensor| Candidate { name: &tensor.name, dtype: dtype.into(), shape: &tensor.shape })
        .collect();
    let reasons = options.rules.decide(&candidates, &config.hints())?;
    check_matched("policy", &options.policy.patterns(), &candidates)?;
    let items: Vec<_> = candidates.into_iter().zip(reasons).map(|(c, reason)| Item::new(c, reason)).collect();
    let mut summary = Summary { scheme: options.scheme, tensors: Vec::new(), files: Vec::new() };
    lay_out(SINGLE, &items, std::iter::empty(), options.scheme)
        .and_then(|recipe| summarize(&mut summary, &recipe, &items))
        .map_err(|fault| fault.at(path))?;
    Ok(summary)
}

/// Packs the checkpoint `input` into `output`: a directory into a directory, a file into a file.
///
/// Files are quantized in chunks of rows on several threads; the bytes written depend on
/// the input and the options alone. Files keep their names and their tensors; config.json
/// gets a `quantization_config`; other files are copied, weights in other formats left out.
///
/// If an earlier run with the same input and options was killed, its finished files are
/// kept after their checksums have been found right.
///
/// # Errors
/// [`Error::Pipeline`] when `output` exists or touches `input`, or when there is nothing
/// to quantize; [`Error::NonFinite`] and [`Error::ScaleOverflow`] for weights that have no
/// 6-bit form; [`Error::Io`]; those of [`plan_checkpoint`]. No incomplete file stays.
pub fn pack(
    input: &Path,
    output: &Path,
    options: &PackOptions,
    progress: &dyn Progress,
) -> Result<PackReport> {
    output::check_apart(input, output)?;
    let checkpoint = Checkpoint::open(input)?;
    let decided = Decided::new(&checkpoint, options)?;
    decided.check_not_empty()?;
    let sources = open_sources(&checkpoint)?;
    let job = Job {
        checkpoint: &checkpoint,
        files: decided
            .files
            .iter()
            .zip(&sources)
            .map(|(file, source)| file.job(source, options.scheme))
            .collect(),
        config: checkpoint
            .config()
            .map(|config| config.with_quantization(Some(decided.quantization(config)))),
        card: Some(card::section(&decided.summary)),
        recipe: decided.recipe(),
    };
    let work = job.run(output, options.write, progress)?;
    Ok(PackReport { summary: decided.summary, work })
}

/// A checkpoint with everything decided.
struct Decided<'a> {
    checkpoint: &'a Checkpoint,
    options: &'a PackOptions,
    files: Vec<DecidedFile<'a>>,
    summary: Summary,
}

/// One file of it.
struct DecidedFile<'a> {
    shard: &'a Shard,
    recipe: FileRecipe,
}

impl<'a> Decided<'a> {
    fn new(checkpoint: &'a Checkpoint, options: &'a PackOptions) -> Result<Self> {
        check_not_quantized(checkpoint)?;
        let candidates: Vec<_> = checkpoint.entries().map(candidate).collect();
        let hints = checkpoint.config().map(ModelConfig::hints).unwrap_or_default();
        let mut reasons = options.rules.decide(&candidates, &hints)?.into_iter();
        check_matched("policy", &options.policy.patterns(), &candidates)?;
        let tied = tied::duplicate_head(checkpoint)?;

        let mut summary = Summary { scheme: options.scheme, tensors: Vec::new(), files: Vec::new() };
        let mut files = Vec::new();
        for shard in checkpoint.shards() {
            let mut items = Vec::new();
            for (entry, reason) in shard.file().entries().iter().zip(reasons.by_ref()) {
                let mut item = Item::new(candidate(entry), reason);
                if let Some((head, embedding)) = &tied
                    && head == entry.name()
                {
                    item.fate = Fate::Tied(embedding.clone());
                }
                items.push(item);
            }
            let recipe = lay_out(shard.name(), &items, shard.file().metadata().iter(), options.scheme)
                .and_then(|recipe| summarize(&mut summary, &recipe, &items).map(|()| recipe))
                .map_err(|fault| fault.at(shard.path()))?;
            files.push(DecidedFile { shard, recipe });
        }
        Ok(Self { checkpoint, options, files, summary })
    }

    fn check_not_empty(&self) -> Result<()> {
        if self.summary.quantized().tensors > 0 {
            return Ok(());
        }
        let kept = self.summary.kept();
        let reasons: Vec<_> =
            kept.iter().map(|(reason, totals)| format!("{reason}: {}", totals.tensors)).collect();
        let reasons = if reasons.is_empty() { "there are none".to_owned() } else { reasons.join(", ") };
        Err(Error::pipeline(self.checkpoint.path(), PipelineError::Nothing { reasons }))
    }

    /// Everything that the bytes of the safetensors files depend on.
    fn recipe(&self) -> String {
        let fates: Vec<_> = self.summary.tensors.iter().map(|tensor| (&tensor.name, &tensor.fate)).collect();
        format!("pack {:?} {fates:?}", self.options.scheme)
    }

    fn quantization(&self, config: &ModelConfig) -> Value {
        let PackOptions { rules, scheme, policy, .. } = self.options;
        quantization_config(scheme, policy, rules, &self.kept_modules(config))
    }

    fn quantized_modules(&self, role: Role) -> Vec<&str> {
        let quantized = self
            .summary
            .tensors
            .iter()
            .filter(|tensor| tensor.role == role && tensor.fate == Fate::Quantized);
        quantized.map(|tensor| module_of(&tensor.name)).collect()
    }

    /// The modules that a loader would take for quantized ones and that are not.
    fn kept_modules(&self, config: &ModelConfig) -> Vec<&str> {
        let takes =
            |role| matches!(role, Role::Linear | Role::Experts | Role::LmHead | Role::Router | Role::Tower);
        let mut modules: Vec<_> = self
            .summary
            .tensors
            .iter()
            .filter(|tensor| {
                takes(tensor.role) && tensor.shape.len() >= 2 && matches!(tensor.fate, Fate::Kept(_))
            })
            .map(|tensor| module_of(&tensor.name))
            .collect();
        // a head that shares a plain embedding is plain although it is not stored
        let no_head =
            !self.summary.tensors.iter().any(|t| t.role == Role::LmHead && !matches!(t.fate, Fate::Tied(_)));
        if config.tied() && no_head && self.quantized_modules(Role::Embedding).is_empty() {
            modules.push("lm_head");
        }
        modules
    }
}

fn check_not_quantized(checkpoint: &Checkpoint) -> Result<()> {
    let method = checkpoint.config().and_then(ModelConfig::quant_method);
    let packed =
        |shard: &Shard| shard.file().manifest().is_some_and(|manifest| !manifest.tensors().is_empty());
    let method = method.or_else(|| checkpoint.shards().iter().any(packed).then_some("flexq"));
    match method {
        Some(method) => {
            Err(Error::pipeline(checkpoint.path(), PipelineError::Quantized { method: method.to_owned() }))
        }
        None => Ok(()),
    }
}

fn candidate(entry: &Entry) -> Candidate<'_> {
    Candidate { name: entry.name(), dtype: entry.dtype(), shape: entry.shape() }
}

impl DecidedFile<'_> {
    fn job<'s>(&self, source: &'s Source, scheme: Scheme) -> FileJob<'s> {
        let tasks = self.tasks(source, scheme);
        FileJob { name: self.recipe.name.clone(), plan: self.recipe.plan.clone(), tasks }
    }

    /// In the order of the source's data, so that it is read from front to back.
    fn tasks<'s>(&self, source: &'s Source, scheme: Scheme) -> Vec<Task<'s>> {
        let header = self.shard.file().header_bytes();
        let entries = self.shard.file().entries().iter();
        let tasks = entries.zip(&self.recipe.stored).filter_map(|(entry, stored)| {
            let columns = entry.shape().last().copied().unwrap_or(1);
            let (action, row_bytes, outputs) = match (*stored, entry.dtype().float()) {
                (Stored::Quantized(codes, scales), Some(dtype)) => {
                    let outputs = vec![
                        Output { id: codes, row_bytes: packed_row_bytes(columns) },
                        Output { id: scales, row_bytes: scheme.group.count(columns) * 2 },
                    ];
                    (Action::Quantize { dtype, columns, scheme }, columns * dtype.size(), outputs)
                }
                (Stored::Copied(id), _) => (Action::Copy, 1, vec![Output { id, row_bytes: 1 }]),
                _ => return None,
            };
            let offset = (header + entry.range().start) as u64;
            Some(Task {
                name: entry.name().to_owned(),
                rows: entry.nbytes() / row_bytes.max(1),
                action,
                inputs: vec![Input { source, offset, row_bytes }],
                outputs,
            })
        });
        tasks.collect()
    }
}
