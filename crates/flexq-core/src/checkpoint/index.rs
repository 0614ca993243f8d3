//! `model.safetensors.index.json`: which file holds which tensor.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde_json::{Map, Value, json};

use super::error::CheckpointError;

/// The index's file name.
pub const INDEX: &str = "model.safetensors.index.json";
/// The file name of a checkpoint that is one file.
pub const SINGLE: &str = "model.safetensors";

/// The files of an index, sorted by name, each with its tensors.
pub(super) fn parse(json: Map<String, Value>) -> Result<BTreeMap<String, Vec<String>>, CheckpointError> {
    let mut shards: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let message = |text: &str| CheckpointError::Json { message: text.to_owned() };
    let Some((_, Value::Object(weight_map))) = json.into_iter().find(|(key, _)| key == "weight_map") else {
        return Err(message("no object \"weight_map\""));
    };
    for (tensor, file) in weight_map {
        let Value::String(file) = file else {
            return Err(message(&format!("the file of tensor {tensor:?} is no string")));
        };
        if !is_plain(&file) {
            return Err(CheckpointError::ShardName { tensor, file });
        }
        shards.entry(file).or_default().push(tensor);
    }
    if shards.is_empty() { Err(CheckpointError::EmptyIndex) } else { Ok(shards) }
}

/// Whether `name` is a safetensors file of the directory itself, on any system.
fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name)
        && !name.contains(['/', '\\', ':', '\0'])
        && name.len() <= 255
        && name.ends_with(".safetensors")
}

/// The text of an index over `shards`: names of files with the tensors stored in them.
pub(crate) fn render<'a>(
    shards: impl IntoIterator<Item = (&'a str, Vec<&'a str>)>,
    total_size: u64,
) -> String {
    let mut weight_map: BTreeMap<&str, &str> = BTreeMap::new();
    for (file, tensors) in shards {
        weight_map.extend(tensors.into_iter().map(|tensor| (tensor, file)));
    }
    let index = json!({ "metadata": { "total_size": total_size }, "weight_map": weight_map });
    format!("{index:#}\n")
}

#[cfg(test)]
mod tests {
    use super::{CheckpointError, is_plain, parse};

    #[test]
    fn only_plain_names_stay_in_the_directory() {
        for name in ["model-00001-of-00002.safetensors", "a.safetensors", "…safetensors.safetensors"] {
            assert!(is_plain(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "../a.safetensors",
            "a/../b.safetensors",
            "a/b.safetensors",
            "/etc/a.safetensors",
            "./a.safetensors",
            "a.safetensors/",
            "..\\a.safetensors",
            "C:a.safetensors",
            "a\0.safetensors",
            "a.bin",
            "a.safetensors/..",
        ] {
            assert!(!is_plain(name), "{name:?}");
        }
        assert!(!is_plain(&format!("{}.safetensors", "a".repeat(255))));
    }

    #[test]
    fn faults_are_told_apart() {
        let parse = |text: &str| parse(serde_json::from_str(text).unwrap());
        assert!(matches!(parse("{}"), Err(CheckpointError::Json { .. })));
        assert!(matches!(parse(r#"{"weight_map": []}"#), Err(CheckpointError::Json { .. })));
        assert!(matches!(parse(r#"{"weight_map": {"a": 1}}"#), Err(CheckpointError::Json { .. })));
        assert_eq!(parse(r#"{"weight_map": {}}"#), Err(CheckpointError::EmptyIndex));
    }
}
