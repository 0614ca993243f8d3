//! Reading a whole file back: is every bit what was written?

use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use crate::checkpoint::{Checkpoint, Shard};
use crate::error::Result;
use crate::format::{Description, Entry, File, FormatError, Manifest};
use crate::layout::packed_row_bytes;
use crate::scheme::BITS;
use crate::threads::{Threads, map};

/// Bytes hashed between two calls of `progress`.
const CHUNK: usize = 4 << 20;

/// What a check of a whole file found.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Stored tensors checked.
    pub entries: usize,
    /// Quantized tensors among them (each is two stored ones).
    pub quantized: usize,
    /// Bytes checked: the whole file.
    pub bytes: u64,
    /// Everything wrong, in file order.
    pub faults: Vec<FormatError>,
}

impl Report {
    /// Whether every bit is what was written.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Opens and checks a file.
///
/// # Errors
/// Those of [`File::open`], which damage to the header may cause as well, and
/// [`FormatError::NoManifest`] for a file without checksums. Damage found later is
/// in the [`Report`].
pub fn verify_file(path: impl AsRef<Path>) -> Result<Report> {
    verify(&File::open(path)?, &|_| ())
}

/// Checks every file of a checkpoint, a directory or a file; each report with its name.
///
/// # Errors
/// Those of [`Checkpoint::open`] and [`verify`].
pub fn verify_checkpoint(path: impl AsRef<Path>) -> Result<Vec<(String, Report)>> {
    let checkpoint = Checkpoint::open(path.as_ref())?;
    let check = |shard: &Shard| Ok((shard.name().to_owned(), verify(shard.file(), &|_| ())?));
    checkpoint.shards().iter().map(check).collect()
}

/// Checks an open file, in parallel over its tensors. `progress` is told of bytes done.
///
/// # Errors
/// [`FormatError::NoManifest`].
pub fn verify(file: &File, progress: &(dyn Fn(usize) + Sync)) -> Result<Report> {
    let manifest = file.manifest().ok_or_else(|| FormatError::NoManifest.at(file.path()))?;
    let (expected, found) = (manifest.header_checksum(), manifest.checksum_header(file.header()));
    let header = (expected != found).then_some(FormatError::HeaderChecksum { expected, found });
    progress(file.header_bytes());
    let checks = map(Threads::ALL, file.entries(), |entry| check(file, manifest, entry, progress));
    let checks = checks.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(Report {
        entries: file.entries().len(),
        quantized: manifest.tensors().len(),
        bytes: file.header_bytes() as u64
            + file.entries().iter().map(|entry| entry.nbytes() as u64).sum::<u64>(),
        faults: header.into_iter().chain(checks.into_iter().flatten()).collect(),
    })
}

/// The faults of one stored tensor.
fn check(
    file: &File,
    manifest: &Manifest,
    entry: &Entry,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Vec<FormatError>> {
    let name = entry.name();
    let bytes = file.bytes(name)?;
    let mut hash = Xxh3::new();
    for (at, chunk) in bytes.chunks(CHUNK).enumerate() {
        hash.update(chunk);
        file.release(name, at * CHUNK..at * CHUNK + chunk.len());
        progress(chunk.len());
    }
    let mut faults = Vec::new();
    let found = hash.digest();
    if let Some(&expected) = manifest.checksums().get(name).filter(|&&expected| expected != found) {
        faults.push(FormatError::Checksum { tensor: name.into(), expected, found });
    }
    let quantized = |suffix| manifest.tensors().get(name.strip_suffix(suffix)?);
    if let Some(description) = quantized("_packed") {
        faults.extend(pad_bits(name, description, &bytes));
    }
    if let Some(description) = quantized("_scale") {
        faults.extend(finite(name, description, &bytes));
    }
    Ok(faults)
}

/// The first row with a bit set after its last code.
fn pad_bits(name: &str, description: &Description, bytes: &[u8]) -> Option<FormatError> {
    let k = description.columns();
    let used = k % 4 * BITS % 8;
    if used == 0 {
        return None;
    }
    let row_bytes = packed_row_bytes(k);
    let row = bytes.chunks_exact(row_bytes).position(|row| row[row_bytes - 1] >> used != 0)?;
    Some(FormatError::PadBits { tensor: name.into(), row })
}

/// The first scale that is no number.
fn finite(name: &str, description: &Description, bytes: &[u8]) -> Option<FormatError> {
    let scheme = description.scheme;
    let (at, scale) = bytes
        .as_chunks::<2>()
        .0
        .iter()
        .enumerate()
        .flat_map(|(at, word)| {
            (0..scheme.scale_type.per_word()).map(move |i| (at, scheme.scale_type.scale_at(word, i)))
        })
        .map(|(at, bits)| (at, scheme.scale_type.from_bits(bits)))
        .find(|(_, scale)| !scale.is_finite())?;
    let groups = scheme.group.count(description.columns());
    let (row, group) = (at / groups, at % groups);
    Some(FormatError::ScaleNotFinite { tensor: name.into(), row, group, found: scale.to_string() })
}
