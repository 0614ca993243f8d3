//! A head that is the embedding once more.

use crate::checkpoint::{Checkpoint, Shard};
use crate::error::Result;
use crate::format::Entry;
use crate::select::Role;

/// Bytes compared at a time.
const CHUNK: usize = 4 << 20;

/// The names of a head and of the embedding that stands for it: where the configuration
/// ties them, the checkpoint stores both, and every byte is equal.
///
/// # Errors
/// None but those of reading the files.
pub(super) fn duplicate_head(checkpoint: &Checkpoint) -> Result<Option<(String, String)>> {
    if !checkpoint.config().is_some_and(crate::checkpoint::ModelConfig::tied) {
        return Ok(None);
    }
    let find = |role| {
        checkpoint.shards().iter().find_map(|shard| {
            let entry =
                shard.file().entries().iter().find(|entry| Role::of(entry.name(), entry.shape()) == role)?;
            Some((shard, entry))
        })
    };
    let (Some(head), Some(embedding)) = (find(Role::LmHead), find(Role::Embedding)) else { return Ok(None) };
    let same = head.1.dtype() == embedding.1.dtype()
        && head.1.shape() == embedding.1.shape()
        && equal_bytes(head, embedding)?;
    Ok(same.then(|| (head.1.name().to_owned(), embedding.1.name().to_owned())))
}

fn equal_bytes(a: (&Shard, &Entry), b: (&Shard, &Entry)) -> Result<bool> {
    let bytes = [a.0.file().bytes(a.1.name())?, b.0.file().bytes(b.1.name())?];
    for (at, (chunk_a, chunk_b)) in bytes[0].chunks(CHUNK).zip(bytes[1].chunks(CHUNK)).enumerate() {
        if chunk_a != chunk_b {
            return Ok(false);
        }
        for (shard, entry) in [a, b] {
            shard.file().release(entry.name(), at * CHUNK..at * CHUNK + chunk_a.len());
        }
    }
    Ok(bytes[0].len() == bytes[1].len())
}
