//! Whole checkpoints, file by file, in chunks of rows: memory does not grow with them.
//!
//! Rules decide what each tensor becomes, a recipe lays out the files, an engine of
//! several threads fills them, and each file gets its name when it is complete. A run
//! that was killed is taken up by the next: it keeps the files whose checksums hold.

mod action;
mod card;
mod engine;
mod error;
mod job;
mod output;
mod pack;
mod policy;
mod progress;
mod queue;
mod recipe;
mod source;
mod summary;
mod tied;

pub use error::PipelineError;
pub use job::{WriteOptions, WriteReport};
pub use pack::{PackOptions, PackReport, pack, plan_checkpoint, plan_config};
pub use policy::{ActBits, Policy};
pub use progress::{Event, Progress};
pub use summary::{Fate, FileSummary, Summary, TensorSummary, Totals};
