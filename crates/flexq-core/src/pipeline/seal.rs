//! Manifests for packed files that another program wrote.
//!
//! transformers saves codes and scales like any other tensor: without checksums, and the
//! scales of a weight sometimes in the next file.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use super::output::write_file;
use crate::checkpoint::{Checkpoint, CheckpointError, INDEX, Shard, read_json};
use crate::dtype::FloatType;
use crate::error::{Error, Result};
use crate::format::{Description, EntryId, FormatError, Plan, Writer, packed_name, scale_name};
use crate::scheme::Scheme;

/// Replaces the files of the checkpoint at `path` by ones that hold the same tensors and a
/// manifest, the scales of a weight beside its codes.
///
/// `weights` are the quantized tensors with their shapes; all were quantized by `scheme` from
/// `origin`. Every file is replaced completely or not at all. A killed run may leave scales in
/// two files, which opening the checkpoint then tells.
///
/// # Errors
/// [`FormatError::MissingPart`] for a weight without codes or without scales, [`Error::Length`]
/// for one of another shape, [`Error::Io`], and those of [`Checkpoint::open`].
pub fn seal(
    path: &Path,
    weights: &BTreeMap<String, Vec<usize>>,
    origin: FloatType,
    scheme: Scheme,
) -> Result<()> {
    let checkpoint = Checkpoint::open(path)?;
    let mut found: HashMap<&str, &Shard> = HashMap::new();
    for shard in checkpoint.shards() {
        found.extend(shard.file().entries().iter().map(|entry| (entry.name(), shard)));
    }
    for weight in weights.keys() {
        for stored in [packed_name(weight), scale_name(weight)] {
            if !found.contains_key(stored.as_str()) {
                return Err(FormatError::MissingPart { tensor: weight.clone(), stored }.at(path));
            }
        }
    }
    let describe = |shape: &Vec<usize>| Description { shape: shape.clone(), origin, scheme };
    let (mut moved, mut emptied) = (Vec::new(), Vec::new());
    for shard in checkpoint.shards() {
        let (plan, parts) = contents(shard, weights, &found, describe)?;
        if parts.is_empty() {
            emptied.push(shard.path());
            continue;
        }
        let writer = Writer::create(shard.path(), plan)?;
        for (id, source, stored) in parts {
            writer.write(id, &source.file().bytes(&stored)?)?;
            if source.name() != shard.name() {
                moved.push((stored, shard.name()));
            }
        }
        writer.finish()?;
    }
    if !moved.is_empty() {
        update_index(&path.join(INDEX), moved)?;
    }
    emptied
        .into_iter()
        .try_for_each(|file| fs::remove_file(file).map_err(|error| Error::io("remove", file, error)))
}

/// What goes into the file of `shard`, and where each tensor comes from.
fn contents<'a>(
    shard: &'a Shard,
    weights: &BTreeMap<String, Vec<usize>>,
    found: &HashMap<&str, &'a Shard>,
    describe: impl Fn(&Vec<usize>) -> Description,
) -> Result<(Plan, Vec<(EntryId, &'a Shard, String)>)> {
    let fault = |fault: FormatError| fault.at(shard.path());
    let mut plan = Plan::new();
    for (key, value) in shard.file().metadata() {
        plan.set_metadata(key, value);
    }
    let mut parts = Vec::new();
    for entry in shard.file().entries() {
        let weight = |suffix| weights.get_key_value(entry.name().strip_suffix(suffix)?);
        if let Some((name, shape)) = weight("_packed") {
            let (codes, scales) = plan.add_quantized(name, describe(shape)).map_err(fault)?;
            let stored = scale_name(name);
            parts.push((codes, shard, entry.name().to_owned()));
            parts.push((scales, found[stored.as_str()], stored));
        } else if weight("_scale").is_none() {
            let id = plan.add(entry.name(), entry.dtype(), entry.shape().to_vec()).map_err(fault)?;
            parts.push((id, shard, entry.name().to_owned()));
        }
    }
    Ok((plan, parts))
}

/// Tells the index about tensors that are now in other files.
fn update_index(path: &Path, moved: Vec<(String, &str)>) -> Result<()> {
    let fault =
        |message: &str| Error::checkpoint(path, CheckpointError::Json { message: message.to_owned() });
    let mut index: Map<String, Value> = read_json(path)?.ok_or_else(|| fault("missing"))?;
    let weight_map = index.get_mut("weight_map").and_then(Value::as_object_mut);
    let weight_map = weight_map.ok_or_else(|| fault("no object \"weight_map\""))?;
    weight_map.extend(moved.into_iter().map(|(stored, file)| (stored, file.into())));
    write_file(path, format!("{:#}\n", Value::Object(index)).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Dtype;
    use crate::verify::verify_file;

    /// A file without manifest, each tensor filled with a byte.
    fn write(path: &Path, tensors: &[(&str, Dtype, [usize; 2], u8)]) {
        let entries: Map<String, Value> = tensors
            .iter()
            .scan(0, |end, (name, dtype, shape, _)| {
                let start = *end;
                *end += shape.iter().product::<usize>() * dtype.bits() / 8;
                let entry = serde_json::json!({
                    "dtype": dtype.name(), "shape": shape, "data_offsets": [start, *end]
                });
                Some(((*name).to_owned(), entry))
            })
            .collect();
        let text = Value::Object(entries).to_string();
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        for (_, dtype, shape, fill) in tensors {
            bytes.resize(bytes.len() + shape.iter().product::<usize>() * dtype.bits() / 8, *fill);
        }
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn scales_join_their_codes_and_every_file_can_be_verified() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (first, second) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
        write(&path(first), &[("a", Dtype::BF16, [3, 5], 1), ("b.weight_packed", Dtype::U8, [2, 96], 2)]);
        write(&path(second), &[("b.weight_scale", Dtype::F16, [2, 1], 3)]);
        let index = serde_json::json!({
            "metadata": { "total_parameters": 271 },
            "weight_map": { "a": first, "b.weight_packed": first, "b.weight_scale": second },
        });
        fs::write(path(INDEX), index.to_string()).unwrap();
        let weights = BTreeMap::from([("b.weight".to_owned(), vec![2, 128])]);
        seal(directory.path(), &weights, FloatType::BF16, Scheme::default()).unwrap();

        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        assert_eq!(checkpoint.shards().len(), 1);
        assert!(!path(second).exists());
        assert!(verify_file(path(first)).unwrap().is_intact());
        let file = checkpoint.shards()[0].file();
        let weight = file.qtensor("b.weight").unwrap();
        assert_eq!((weight.shape(), weight.origin()), (&[2, 128][..], FloatType::BF16));
        assert!(weight.packed().iter().all(|&byte| byte == 2));
        assert!(weight.scales().iter().all(|&byte| byte == 3));
        assert!(file.bytes("a").unwrap().iter().all(|&byte| byte == 1));
        let index: Map<String, Value> = read_json(&path(INDEX)).unwrap().unwrap();
        assert_eq!(index["metadata"]["total_parameters"], 271);
    }

    #[test]
    fn a_weight_without_scales_or_of_another_shape_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.safetensors");
        let seal = |columns| {
            let weights = BTreeMap::from([("b.weight".to_owned(), vec![2, columns])]);
            seal(directory.path(), &weights, FloatType::F32, Scheme::default()).unwrap_err().to_string()
        };
        write(&path, &[("b.weight_packed", Dtype::U8, [2, 96], 2)]);
        assert!(seal(128).contains("b.weight_scale"));
        write(
            &path,
            &[("b.weight_packed", Dtype::U8, [2, 96], 2), ("b.weight_scale", Dtype::F16, [2, 1], 3)],
        );
        assert!(seal(256).contains("b.weight_packed"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
