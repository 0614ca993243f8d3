//! The arguments of every command.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use flexq_core::pipeline::{PackOptions, Policy, WriteOptions};
use flexq_core::select::{Pattern, Preset, Rules};
use flexq_core::{Group, Result, ScaleRule, ScaleType, Scheme, Threads};

const ABOUT: &str = "6-bit checkpoints: pack, look into, check and convert them";

const EXAMPLES: &str = "\
Examples:
  flexq-pack plan Llama-3.1-8B                     what it will take, from config.json alone
  flexq-pack pack Llama-3.1-8B Llama-3.1-8B-6bit   linear layers to 6 bits
  flexq-pack pack --preset full model small        also embeddings and lm_head
  flexq-pack verify small                          is every bit what was written?
  flexq-pack inspect anything.safetensors          where do the bytes go?

Exit codes: 0 done, 1 a check found damage, 2 wrong options, 3 unusable input,
4 reading or writing failed, 130 interrupted.";

/// `flexq-pack`.
#[derive(Debug, Parser)]
#[command(name = "flexq-pack", version, about = ABOUT, after_help = EXAMPLES, max_term_width = 100)]
pub struct Arguments {
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// How results are told.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Print one JSON object instead of text
    #[arg(long, global = true, display_order = 100)]
    pub json: bool,
    /// Print nothing but errors (and JSON, if asked for)
    #[arg(long, short, global = true, display_order = 101)]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Quantize a checkpoint to 6 bits
    #[command(after_help = PACK_EXAMPLES)]
    Pack(PackArgs),
    /// Predict exact sizes, from config.json or from the headers of a checkpoint
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(PlanArgs),
    /// Tell where the bytes of any safetensors checkpoint go
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(InspectArgs),
    /// Check every bit of a packed checkpoint
    Verify(VerifyArgs),
    /// Turn a packed checkpoint back into floats
    #[command(after_help = UNPACK_EXAMPLES)]
    Unpack(UnpackArgs),
    /// Write a packed checkpoint in another format
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArgs),
    /// Take over a 6-bit checkpoint of compressed-tensors, codes and scales as they are
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(ImportArgs),
    /// Print a completion script for a shell
    #[command(after_help = COMPLETION_EXAMPLES)]
    Completions {
        /// The shell
        shell: Shell,
    },
}

const PACK_EXAMPLES: &str = "\
A pattern is a tensor or module by its full name (model.layers.0.mlp.down_proj), the end of
one (down_proj), or a regular expression from the start of the name (re:.*layers\\.[0-3]\\.).

Examples:
  flexq-pack pack Llama-3.1-8B out
  flexq-pack pack --preset full --scale-rule mse Llama-3.1-8B out
  flexq-pack pack --exclude 're:.*layers\\.0\\.' --policy paper Llama-3.1-8B out
  flexq-pack pack weights.safetensors packed.safetensors

A run that was killed is taken up where it was by the same command.";

const PLAN_EXAMPLES: &str = "\
Examples:
  flexq-pack plan Llama-3.1-8B/config.json
  flexq-pack plan --preset full Llama-3.1-8B";

const INSPECT_EXAMPLES: &str = "\
Codes are read to see which levels occur: codes of 6 bits that take a byte each are found.

Examples:
  flexq-pack inspect model.safetensors
  flexq-pack inspect --tensors Llama-3.1-8B-W6A8";

const UNPACK_EXAMPLES: &str = "\
Examples:
  flexq-pack unpack packed floats                  in the types it was packed from
  flexq-pack unpack --dtype bf16 packed floats";

const EXPORT_EXAMPLES: &str = "\
The output is a dense `pack-quantized` checkpoint, which compressed-tensors 0.18 and later,
and what builds on it, can open. Codes and scales are the same bytes.

Example:
  flexq-pack export --to compressed-tensors packed exported";

const IMPORT_EXAMPLES: &str = "\
Symmetric 6-bit weights are taken over exactly: dense ones (`pack-quantized`) and those that
take a byte per code (`int-quantized`, `naive-quantized`), which become a quarter smaller.

Example:
  flexq-pack import Llama-3.1-8B-W6A8 packed";

const COMPLETION_EXAMPLES: &str = "\
Example:
  flexq-pack completions bash > ~/.local/share/bash-completion/completions/flexq-pack";

/// `pack`.
#[derive(Debug, Args)]
pub struct PackArgs {
    /// Hugging Face directory or safetensors file to pack; it is not touched
    pub input: PathBuf,
    /// Directory or file to write
    pub output: PathBuf,
    #[command(flatten)]
    pub quantization: QuantizationArgs,
    #[command(flatten)]
    pub write: WriteArgs,
}

/// `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// config.json, or a directory that holds it or weights, or a safetensors file
    pub input: PathBuf,
    #[command(flatten)]
    pub quantization: QuantizationArgs,
}

/// `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Directory or file, packed or not, of flexq or another tool
    pub input: PathBuf,
    /// List every tensor
    #[arg(long)]
    pub tensors: bool,
    /// Read headers only, no codes
    #[arg(long)]
    pub headers: bool,
}

/// `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Packed directory or file
    pub input: PathBuf,
}

/// How output is written.
#[derive(Clone, Copy, Debug, Args)]
pub struct WriteArgs {
    /// Threads to work with (default: all); the output does not depend on it
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Replace an output that exists, or an unfinished one of other options
    #[arg(long)]
    pub force: bool,
    /// Wait until the disk has everything
    #[arg(long)]
    pub sync: bool,
}

impl WriteArgs {
    /// The same for the library.
    pub fn options(self) -> WriteOptions {
        let threads = self.threads.map_or(Threads::ALL, |n| Threads::new(n.get()));
        WriteOptions { threads, force: self.force, sync: self.sync }
    }
}

/// `unpack`.
#[derive(Debug, Args)]
pub struct UnpackArgs {
    /// Packed directory or file; it is not touched
    pub input: PathBuf,
    /// Directory or file to write
    pub output: PathBuf,
    /// Type of the floats (default: what each tensor was packed from)
    #[arg(long, value_parser = ["bf16", "f16", "f32"])]
    pub dtype: Option<String>,
    #[command(flatten)]
    pub write: WriteArgs,
}

/// `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Packed directory or file; it is not touched
    pub input: PathBuf,
    /// Directory or file to write
    pub output: PathBuf,
    /// The format
    #[arg(long, value_parser = ["compressed-tensors"], default_value = "compressed-tensors")]
    pub to: String,
    #[command(flatten)]
    pub write: WriteArgs,
}

/// `import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Directory of compressed-tensors; it is not touched
    pub input: PathBuf,
    /// Directory to write
    pub output: PathBuf,
    #[command(flatten)]
    pub write: WriteArgs,
}

/// What is quantized, and how.
#[derive(Debug, Args)]
pub struct QuantizationArgs {
    /// What to quantize: `linear` layers and experts, or in `full` also embeddings and `lm_head`
    #[arg(long, default_value = "linear", value_parser = ["linear", "full"])]
    pub preset: String,
    /// Quantize also what this pattern names (may be repeated)
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,
    /// Keep what this pattern names (may be repeated; wins over --include)
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Columns that share a scale
    #[arg(long, default_value = "128", value_parser = ["32", "64", "128", "256", "row"])]
    pub group_size: String,
    /// How scales are found; `mse` has the least error and takes longer
    #[arg(long, default_value = "absmax32s", value_parser = ["absmax31", "absmax32s", "mse"])]
    pub scale_rule: String,
    /// How scales are stored; `pair` has one for each half of a group in the same bytes
    #[arg(long, default_value = "f16", value_parser = ["f16", "bf16", "pair"])]
    pub scale_type: String,
    /// Bits of activations at run time: `auto`, `paper` (8 into `down_proj`, 6 elsewhere), or a JSON file
    #[arg(long, default_value = "auto", value_name = "auto|paper|FILE")]
    pub policy: String,
}

impl QuantizationArgs {
    /// The same for the library.
    ///
    /// # Errors
    /// For a faulty pattern or policy; the rest was checked while parsing.
    pub fn options(&self) -> Result<PackOptions> {
        let patterns =
            |texts: &[String]| texts.iter().map(|text| Pattern::new(text)).collect::<Result<Vec<_>, _>>();
        Ok(PackOptions {
            rules: Rules {
                preset: self.preset.parse::<Preset>()?,
                include: patterns(&self.include)?,
                exclude: patterns(&self.exclude)?,
            },
            scheme: Scheme {
                group: self.group_size.parse::<Group>()?,
                rule: self.scale_rule.parse::<ScaleRule>()?,
                scale_type: self.scale_type.to_uppercase().parse::<ScaleType>()?,
            },
            policy: Policy::named(&self.policy)?,
            ..PackOptions::default()
        })
    }
}

impl PackArgs {
    /// The same for the library.
    ///
    /// # Errors
    /// Those of [`QuantizationArgs::options`].
    pub fn options(&self) -> Result<PackOptions> {
        Ok(PackOptions { write: self.write.options(), ..self.quantization.options()? })
    }
}
