//! Whole checkpoints, file by file, in chunks of rows: memory does not grow with them.
//!
//! Rules decide what each tensor becomes, a recipe lays out the files, an engine of
//! several threads fills them, and each file gets its name when it is complete. A run
//! that was killed is taken up by the next: it keeps the files whose checksums hold.

pub(crate) mod action;
mod card;
pub(crate) mod document;
pub(crate) mod engine;
mod error;
pub(crate) mod job;
mod output;
mod pack;
mod policy;
mod progress;
mod queue;
mod recipe;
mod seal;
pub(crate) mod source;
pub(crate) mod steps;
mod summary;
mod tied;
pub(crate) mod unpack;

pub use error::PipelineError;
pub use job::{WriteOptions, WriteReport};
pub use pack::{PackOptions, PackReport, PlanSource, pack, plan, plan_checkpoint, plan_config};
pub use policy::{ActBits, Policy};
pub use progress::{Event, Progress};
pub use seal::seal;
pub use summary::{Fate, FileSummary, Summary, TensorSummary, Totals};
pub use unpack::unpack;
