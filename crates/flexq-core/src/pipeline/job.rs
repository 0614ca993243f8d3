//! Writing a whole checkpoint: what packing, unpacking, exporting and importing share.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::engine::{self, Task};
use super::progress::{Event, Progress};
use super::source::Source;
use super::{card, output};
use crate::checkpoint::{CONFIG, Checkpoint, INDEX, Kind, SINGLE, render_index};
use crate::error::{Error, Result};
use crate::format::{File, Plan, Writer};
use crate::threads::Threads;
use crate::verify::verify;

/// How a checkpoint is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteOptions {
    /// How many threads work; the output does not depend on it.
    pub threads: Threads,
    /// Replace an output that exists.
    pub force: bool,
    /// Wait until the disk has every file before it gets its name. Without it, what the
    /// system still holds in memory is lost with the power, as after `cp`.
    pub sync: bool,
}

/// What writing a checkpoint took.
#[derive(Clone, Debug, Default)]
pub struct WriteReport {
    /// Bytes of all safetensors files.
    pub file_bytes: u64,
    /// Files that an earlier run had finished.
    pub resumed: Vec<String>,
    /// Other files copied, by path in the directory.
    pub copied: Vec<PathBuf>,
    /// Files left out: weights that are no part of the checkpoint.
    pub left_out: Vec<PathBuf>,
    /// Threads that worked.
    pub threads: usize,
    /// Time taken.
    pub duration: Duration,
    /// Bytes of tensor data read, those of resumed files not counted.
    pub bytes_read: u64,
}

/// One safetensors file to write.
pub(crate) struct FileJob<'a> {
    pub name: String,
    pub plan: Plan,
    /// In the order in which the source is best read.
    pub tasks: Vec<Task<'a>>,
}

impl FileJob<'_> {
    fn bytes(&self) -> u64 {
        self.tasks.iter().map(Task::bytes).sum()
    }
}

/// A checkpoint to write.
pub(crate) struct Job<'a> {
    /// What it is made from.
    pub checkpoint: &'a Checkpoint,
    pub files: Vec<FileJob<'a>>,
    /// The text of config.json, if there is to be one.
    pub config: Option<String>,
    /// The text to add to the model card.
    pub card: Option<String>,
    /// Whatever the bytes of the files depend on beside the input, as text.
    pub recipe: String,
}

/// The files of a checkpoint, opened for reading by position, in its order.
pub(crate) fn open_sources(checkpoint: &Checkpoint) -> Result<Vec<Source>> {
    checkpoint.shards().iter().map(|shard| Source::open(shard.path())).collect()
}

impl Job<'_> {
    /// Writes everything: a directory from a directory, a file from a file.
    ///
    /// In a directory, finished files of an earlier run are kept if its recipe was the
    /// same; what makes the directory loadable, config.json and the index, comes last.
    pub fn run(&self, output: &Path, options: WriteOptions, progress: &dyn Progress) -> Result<WriteReport> {
        let start = Instant::now();
        let directory = self.checkpoint.kind() == Kind::Directory;
        output::check_apart(self.checkpoint.path(), output)?;
        if directory {
            let fingerprint = output::fingerprint(self.checkpoint, &self.recipe)?;
            output::prepare_directory(output, &fingerprint, options.force)?;
        } else {
            output::prepare_file(output, options.force)?;
        }
        let bytes = self.files.iter().map(FileJob::bytes).sum();
        tell(progress, Event::Begin { files: self.files.len(), bytes })?;
        let mut report = WriteReport { threads: options.threads.count(), ..WriteReport::default() };
        for file in &self.files {
            let target = if directory { output.join(&file.name) } else { output.to_owned() };
            if directory && is_finished(&target, &file.plan)? {
                tell(progress, Event::Kept { name: &file.name, bytes: file.bytes() })?;
                report.resumed.push(file.name.clone());
            } else {
                tell(progress, Event::File { name: &file.name })?;
                let writer = Writer::create(&target, file.plan.clone())?;
                engine::run(&file.tasks, &writer, report.threads, options.sync, progress)?;
                if options.sync {
                    writer.finish()?;
                } else {
                    writer.finish_unsynced()?;
                }
                report.bytes_read += file.bytes();
            }
            report.file_bytes += file.plan.file_bytes().map_err(|fault| fault.at(&target))?;
        }
        if directory {
            (report.copied, report.left_out) = output::copy_others(self.checkpoint, output)?;
            self.write_documents(output)?;
            output::finish_directory(output)?;
        }
        report.duration = start.elapsed();
        Ok(report)
    }

    fn write_documents(&self, output: &Path) -> Result<()> {
        if let Some(section) = &self.card {
            card::write(output, section)?;
        }
        if !matches!(self.files.as_slice(), [only] if only.name == SINGLE) {
            let names: Vec<_> =
                self.files.iter().map(|file| (file.name.as_str(), file.plan.names())).collect();
            let bytes = self.files.iter().map(|file| file.plan.data_bytes()).sum();
            output::write_file(&output.join(INDEX), render_index(names, bytes).as_bytes())?;
        }
        match &self.config {
            Some(text) => output::write_file(&output.join(CONFIG), text.as_bytes()),
            None => Ok(()),
        }
    }
}

fn tell(progress: &dyn Progress, event: Event<'_>) -> Result<()> {
    match progress.report(event) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Interrupted),
    }
}

/// Whether `target` is what `plan` says, complete and intact.
fn is_finished(target: &Path, plan: &Plan) -> Result<bool> {
    if !target.exists() {
        return Ok(false);
    }
    match File::open(target) {
        Ok(file) if plan.describes(&file) => Ok(verify(&file, &|_| ())?.is_intact()),
        Ok(_) | Err(Error::Format { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
