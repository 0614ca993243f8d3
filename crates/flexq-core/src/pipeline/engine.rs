//! The working threads: read a chunk of rows, transform it, write it, add up its checksum.
//!
//! Chunks of a few megabytes go through buffers that stay in the cache, whatever the size
//! of a tensor or file. Every chunk's place in the output is known beforehand, so threads
//! write where they are; only the checksums are kept in order, by a [`Turnstile`]. The bytes
//! written depend neither on the number of threads nor on their timing.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::action::Action;
use super::progress::{Event, Progress};
use super::queue::{Buffers, Pool, Turnstile};
use super::source::Source;
use crate::error::{Error, Result};
use crate::format::{EntryId, Writer};

/// Bytes read per chunk, if a row is not longer. A chunk and what is made of it fit a
/// 2 MiB cache, and a system call is cheap beside them.
const CHUNK_BYTES: usize = 1 << 20;

/// Bytes after which the disk is given what was written, where the run ends with waiting
/// for it.
const FLUSH_BYTES: u64 = 64 << 20;

/// Consecutive rows to read.
#[derive(Clone)]
pub(crate) struct Input<'a> {
    pub source: &'a Source,
    /// Where the first row begins in the file.
    pub offset: u64,
    pub row_bytes: usize,
}

/// A stored tensor to write, as rows.
#[derive(Clone)]
pub(crate) struct Output {
    pub id: EntryId,
    pub row_bytes: usize,
}

/// Rows of one or two inputs that become as many rows of one or two stored tensors.
#[derive(Clone)]
pub(crate) struct Task<'a> {
    /// The tensor's name, for messages.
    pub name: String,
    pub rows: usize,
    pub action: Action,
    pub inputs: Vec<Input<'a>>,
    pub outputs: Vec<Output>,
}

impl Task<'_> {
    fn rows_per_chunk(&self) -> usize {
        let longest = self.inputs.iter().map(|input| input.row_bytes).max().unwrap_or(0);
        (CHUNK_BYTES / longest.max(1)).max(1)
    }

    /// Bytes this task reads.
    pub fn bytes(&self) -> u64 {
        self.inputs.iter().map(|input| input.row_bytes as u64).sum::<u64>() * self.rows as u64
    }
}

/// A range of rows of a task.
struct Chunk {
    task: usize,
    index: usize,
    first: usize,
    rows: usize,
}

fn chunks(tasks: &[Task<'_>]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for (task, description) in tasks.iter().enumerate() {
        let step = description.rows_per_chunk();
        for (index, first) in (0..description.rows).step_by(step).enumerate() {
            chunks.push(Chunk { task, index, first, rows: step.min(description.rows - first) });
        }
    }
    chunks
}

/// Does `tasks` on `threads` threads; with `sync`, the disk writes meanwhile.
///
/// # Errors
/// The first failure; the file of `writer` is then incomplete.
pub(crate) fn run(
    tasks: &[Task<'_>],
    writer: &Writer,
    threads: usize,
    sync: bool,
    progress: &dyn Progress,
) -> Result<()> {
    let chunks = chunks(tasks);
    let threads = threads.clamp(1, chunks.len().max(1));
    let work = Work {
        tasks,
        chunks: &chunks,
        next: AtomicUsize::new(0),
        written: AtomicU64::new(0),
        done: AtomicBool::new(false),
        pool: Pool::new(2 * threads),
        turnstiles: tasks.iter().map(|_| Turnstile::default()).collect(),
        writer,
        progress,
        failure: Mutex::new(None),
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| work.run())).collect();
        let flusher = sync.then(|| scope.spawn(|| work.flush()));
        work.run();
        if let Some(flusher) = flusher {
            for other in others {
                // the pool stops the others; there is no result to look at
                drop(other.join());
            }
            work.done.store(true, Ordering::Relaxed);
            flusher.thread().unpark();
        }
    });
    match work.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

struct Work<'a> {
    tasks: &'a [Task<'a>],
    chunks: &'a [Chunk],
    next: AtomicUsize,
    /// Bytes put to their places.
    written: AtomicU64,
    /// No more will be.
    done: AtomicBool,
    pool: Pool,
    turnstiles: Vec<Turnstile>,
    writer: &'a Writer,
    progress: &'a dyn Progress,
    /// The failure of the earliest chunk that failed, with its number.
    failure: Mutex<Option<(usize, Error)>>,
}

impl Work<'_> {
    /// One thread's share.
    fn run(&self) {
        while let Some(mut buffers) = self.pool.take() {
            // taken after the buffers: the earliest unfinished chunk then always has some
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(chunk) = self.chunks.get(number) else {
                return self.pool.put(buffers);
            };
            let done = self.chunk(chunk, &mut buffers).and_then(|()| self.count(chunk, buffers));
            if let Err(error) = done {
                return self.fail(number, error);
            }
        }
    }

    /// Gives the disk what was written, again and again, until all is.
    fn flush(&self) {
        let mut flushed = 0;
        while !self.done.load(Ordering::Relaxed) {
            let written = self.written.load(Ordering::Relaxed);
            if written - flushed < FLUSH_BYTES {
                std::thread::park_timeout(Duration::from_millis(5));
                continue;
            }
            if let Err(error) = self.writer.flush() {
                return self.fail(usize::MAX, error);
            }
            flushed = written;
        }
    }

    fn fail(&self, number: usize, error: Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.as_ref().is_none_or(|(earlier, _)| number < *earlier) {
            *failure = Some((number, error));
        }
        self.pool.stop();
    }

    /// Reads, transforms and writes a chunk.
    fn chunk(&self, chunk: &Chunk, buffers: &mut Buffers) -> Result<()> {
        let task = &self.tasks[chunk.task];
        let mut bytes = 0;
        for (input, buffer) in task.inputs.iter().zip(&mut buffers.inputs) {
            buffer.resize(chunk.rows * input.row_bytes, 0);
            input.source.read_at(buffer, input.offset + (chunk.first * input.row_bytes) as u64)?;
            bytes += buffer.len() as u64;
        }
        for (output, buffer) in task.outputs.iter().zip(&mut buffers.outputs) {
            buffer.resize(chunk.rows * output.row_bytes, 0);
        }
        task.action
            .apply(chunk.rows, buffers)
            .map_err(|error| error.in_tensor(&task.name).after_rows(chunk.first))?;
        for (output, buffer) in task.outputs.iter().zip(&buffers.outputs) {
            self.writer.place(output.id, chunk.first * output.row_bytes, buffer)?;
            self.written.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        }
        match self.progress.report(Event::Bytes(bytes)) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        }
    }

    /// Takes a written chunk into the checksums when its turn comes.
    fn count(&self, chunk: &Chunk, buffers: Buffers) -> Result<()> {
        let outputs = &self.tasks[chunk.task].outputs;
        self.turnstiles[chunk.task].pass(chunk.index, buffers, |buffers| {
            for (output, buffer) in outputs.iter().zip(&buffers.outputs) {
                self.writer.count(output.id, buffer)?;
            }
            self.pool.put(buffers);
            Ok(())
        })
    }
}
