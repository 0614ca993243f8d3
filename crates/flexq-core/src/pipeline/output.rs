//! Where output goes: what may be replaced, what an earlier run left, and other files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::error::PipelineError;
use crate::checkpoint::{CONFIG, Checkpoint, INDEX, Kind, Shard, read_json};
use crate::error::{Error, Result};
use crate::format::TEMPORARY_MARK;

/// Exists in an output directory as long as the work there is unfinished.
const STATE: &str = ".flexq-unfinished.json";

/// What [`STATE`] holds.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct State {
    /// Of the input and of all options that files depend on.
    fingerprint: String,
}

/// A hash of whatever decides the bytes of the output files.
///
/// The input's data is known by size and time of change: reading it would cost as much as
/// doing the work again.
pub(super) fn fingerprint(checkpoint: &Checkpoint, options: &str) -> Result<String> {
    let mut hash = Xxh3::new();
    hash.update(options.as_bytes());
    for shard in checkpoint.shards() {
        let metadata = fs::metadata(shard.path()).map_err(|error| Error::io("open", shard.path(), error))?;
        let changed =
            metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let nanoseconds = changed.map_or(0, |time| time.as_nanos());
        hash.update(shard.name().as_bytes());
        hash.update(&metadata.len().to_le_bytes());
        hash.update(&nanoseconds.to_le_bytes());
        hash.update(shard.file().header());
    }
    Ok(format!("{:016x}", hash.digest()))
}

/// Refuses output on, inside or around the input.
pub(super) fn check_apart(input: &Path, output: &Path) -> Result<()> {
    let canonical = |path: &Path| path.canonicalize().map_err(|error| Error::io("open", path, error));
    let (from, to) = (canonical(input)?, resolve(output)?);
    let input_text = || input.display().to_string();
    let fault = if from == to || same_file(&from, &to) {
        PipelineError::OutputIsInput
    } else if from.is_dir() && to.starts_with(&from) {
        PipelineError::OutputInsideInput { input: input_text() }
    } else if from.starts_with(&to) {
        PipelineError::InputInsideOutput { input: input_text() }
    } else {
        return Ok(());
    };
    Err(Error::pipeline(output, fault))
}

/// The canonical form of a path of which the last parts need not exist.
fn resolve(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(|error| Error::io("open", path, error))?;
    let mut missing = Vec::new();
    let mut existing = absolute.as_path();
    loop {
        match existing.canonicalize() {
            Ok(base) => return Ok(missing.iter().rev().fold(base, |path: PathBuf, part| path.join(part))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("open", existing, error)),
        }
        let (Some(parent), Some(name)) = (existing.parent(), existing.file_name()) else {
            return Err(Error::io("open", path, io::ErrorKind::NotFound.into()));
        };
        missing.push(name.to_owned());
        existing = parent;
    }
}

/// Whether two paths lead to one file, for instance as hard links.
#[cfg(unix)]
fn same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (fs::metadata(a), fs::metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn same_file(_: &Path, _: &Path) -> bool {
    false
}

/// Makes ready the directory `output`: new, or as an unfinished run of the same
/// fingerprint left it, or emptied of an earlier result if `force`.
pub(super) fn prepare_directory(output: &Path, fingerprint: &str, force: bool) -> Result<()> {
    let refuse = |fault| Err(Error::pipeline(output, fault));
    let state = State { fingerprint: fingerprint.to_owned() };
    match fs::metadata(output) {
        Ok(metadata) if !metadata.is_dir() => {
            return refuse(PipelineError::OutputKind { expected: "directory", found: "file" });
        }
        Ok(_) => {
            let unfinished: Option<State> = read_json(&output.join(STATE))?;
            match unfinished {
                Some(earlier) if earlier == state => return remove_files(output, is_temporary),
                _ if force => remove_files(output, |name| is_temporary(name) || is_weights(name))?,
                Some(_) => return refuse(PipelineError::OtherRun),
                None if !is_empty(output)? => return refuse(PipelineError::OutputExists),
                None => {}
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(output).map_err(|error| Error::io("create", output, error))?;
        }
        Err(error) => return Err(Error::io("open", output, error)),
    }
    let text = serde_json::to_string(&state).unwrap_or_default();
    write_file(&output.join(STATE), text.as_bytes())
}

/// Refuses a file `output` that exists, unless `force`; removes what a killed run left of it.
pub(super) fn prepare_file(output: &Path, force: bool) -> Result<()> {
    if let (Some(name), Some(parent)) = (output.file_name(), output.parent()) {
        let mark = format!(".{}{TEMPORARY_MARK}", name.to_string_lossy());
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        remove_files(parent, |name| name.starts_with(&mark))?;
    }
    match fs::metadata(output) {
        Ok(metadata) if metadata.is_dir() => {
            Err(Error::pipeline(output, PipelineError::OutputKind { expected: "file", found: "directory" }))
        }
        Ok(_) if !force => Err(Error::pipeline(output, PipelineError::OutputExists)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("open", output, error)),
        _ => Ok(()),
    }
}

/// Marks the work in `output` as finished.
pub(super) fn finish_directory(output: &Path) -> Result<()> {
    let state = output.join(STATE);
    fs::remove_file(&state).map_err(|error| Error::io("remove", state, error))
}

/// Writes a small file so that it is there completely or not at all.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |file| io::Write::write_all(file, bytes))
}

fn write_with(path: &Path, write: impl FnOnce(&mut fs::File) -> io::Result<()>) -> Result<()> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = path.with_file_name(format!(".{name}{TEMPORARY_MARK}{}", std::process::id()));
    let written = fs::File::create(&temporary).and_then(|mut file| write(&mut file));
    written.and_then(|()| fs::rename(&temporary, path)).map_err(|error| {
        // what is incomplete must not stay; that it cannot be removed changes nothing
        drop(fs::remove_file(&temporary));
        Error::io("write", path, error)
    })
}

fn is_empty(directory: &Path) -> Result<bool> {
    let mut items = fs::read_dir(directory).map_err(|error| Error::io("read", directory, error))?;
    Ok(items.next().is_none())
}

fn remove_files(directory: &Path, which: impl Fn(&str) -> bool) -> Result<()> {
    for item in fs::read_dir(directory).map_err(|error| Error::io("read", directory, error))? {
        let item = item.map_err(|error| Error::io("read", directory, error))?;
        if item.path().is_file() && which(&item.file_name().to_string_lossy()) {
            fs::remove_file(item.path()).map_err(|error| Error::io("remove", item.path(), error))?;
        }
    }
    Ok(())
}

fn is_temporary(name: &str) -> bool {
    name.contains(TEMPORARY_MARK)
}

/// Files by which a loader would take the directory for a finished model.
fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors") || name == INDEX || name == CONFIG
}

/// Extensions of weights, which would be stale beside quantized ones.
const OTHER_WEIGHTS: [&str; 11] =
    ["bin", "ckpt", "gguf", "h5", "msgpack", "npz", "onnx", "ot", "pt", "pth", "safetensors"];

/// Copies everything of the input directory that is neither weights nor written anew, and
/// gives the relative paths of what was copied and of what was left out.
pub(super) fn copy_others(checkpoint: &Checkpoint, output: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut copied, mut left_out) = (Vec::new(), Vec::new());
    if checkpoint.kind() == Kind::Directory {
        copy_tree(checkpoint, output, Path::new(""), &mut copied, &mut left_out)?;
    }
    Ok((copied, left_out))
}

fn copy_tree(
    checkpoint: &Checkpoint,
    output: &Path,
    inside: &Path,
    copied: &mut Vec<PathBuf>,
    left_out: &mut Vec<PathBuf>,
) -> Result<()> {
    let directory = checkpoint.path().join(inside);
    let read = |error| Error::io("read", &directory, error);
    let items: io::Result<Vec<_>> = fs::read_dir(&directory).map_err(read)?.collect();
    let mut items = items.map_err(read)?;
    items.sort_by_key(fs::DirEntry::file_name);
    for item in items {
        let name = item.file_name();
        let relative = inside.join(&name);
        let kind = item.file_type().map_err(read)?;
        if name.to_string_lossy().starts_with('.') {
            continue; // caches and version control
        }
        if kind.is_dir() {
            copy_tree(checkpoint, output, &relative, copied, left_out)?;
        } else if is_written_anew(checkpoint, &relative) {
            // by the caller
        } else if item.path().is_file() && !is_other_weights(&relative) {
            let target = output.join(&relative);
            copy_file(&item.path(), &target)?;
            copied.push(relative);
        } else {
            left_out.push(relative);
        }
    }
    Ok(())
}

/// Copies by way of a temporary name; permissions are those of a new file.
fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let mut source = fs::File::open(from).map_err(|error| Error::io("open", from, error))?;
    let create = to.parent().map_or(Ok(()), fs::create_dir_all);
    create.map_err(|error| Error::io("create", to, error))?;
    write_with(to, |file| io::copy(&mut source, file).map(drop))
}

fn is_written_anew(checkpoint: &Checkpoint, path: &Path) -> bool {
    [CONFIG, INDEX]
        .into_iter()
        .chain(checkpoint.shards().iter().map(Shard::name))
        .any(|name| path == Path::new(name))
}

/// Weights of another format, or of a file that is no part of the checkpoint.
fn is_other_weights(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    extension.is_some_and(|extension| OTHER_WEIGHTS.contains(&extension.as_str()))
}
