//! The `quantization_config` of compressed-tensors: written, and read as far as it matters.

use serde_json::{Map, Value, json};

use super::error::InteropError;
use crate::pipeline::ActBits;
use crate::scheme::{BITS, Group};

/// The `quant_method`.
pub(super) const METHOD: &str = "compressed-tensors";
/// The first release whose 6-bit layout is dense.
const DENSE_SINCE: &str = "0.18.0";

/// The configuration of a dense 6-bit checkpoint; modules in `ignore` are not quantized.
pub(super) fn render(group: Group, ignore: &[String]) -> Value {
    let (strategy, group_size) = match group {
        Group::Columns(columns) => ("group", Value::from(columns)),
        Group::Row => ("channel", Value::Null),
    };
    json!({
        "quant_method": METHOD,
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "version": DENSE_SINCE,
        "ignore": ignore,
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "format": "pack-quantized",
                "input_activations": null,
                "output_activations": null,
                "weights": {
                    "num_bits": BITS,
                    "type": "int",
                    "symmetric": true,
                    "strategy": strategy,
                    "group_size": group_size,
                    "dynamic": false,
                },
            },
        },
    })
}

/// What a configuration says of its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weights {
    pub group: Group,
    pub act_bits: ActBits,
}

/// Reads a configuration that has 6-bit symmetric integer weights and nothing else.
pub(super) fn parse(config: &Map<String, Value>) -> Result<Weights, InteropError> {
    let groups = config.get("config_groups").and_then(Value::as_object);
    let mut found: Option<Weights> = None;
    for group in groups.into_iter().flat_map(Map::values) {
        let weights = parse_group(group)?;
        match found {
            Some(first) if first.group != weights.group => {
                let [first, second] = [first, weights].map(|weights| weights.group.to_string());
                return Err(InteropError::MixedGroups { first, second });
            }
            _ => found = Some(weights),
        }
    }
    found.ok_or_else(|| expected("config_groups", groups.map(|_| &Value::Null), "at least one group"))
}

fn parse_group(group: &Value) -> Result<Weights, InteropError> {
    let weights = group.get("weights");
    let field = |name: &str| weights.and_then(|weights| weights.get(name)).filter(|value| !value.is_null());
    if field("num_bits") != Some(&BITS.into()) {
        return Err(expected("weights.num_bits", field("num_bits"), "6"));
    }
    if field("type").is_some_and(|kind| kind != "int") {
        return Err(expected("weights.type", field("type"), "int"));
    }
    if field("symmetric") == Some(&false.into()) {
        return Err(expected("weights.symmetric", field("symmetric"), "true"));
    }
    let group_size = match (field("strategy").and_then(Value::as_str), field("group_size")) {
        (Some("channel"), _) => Group::Row,
        (Some("group") | None, Some(size)) => size
            .as_u64()
            .and_then(|size| Group::columns(size as usize).ok())
            .ok_or_else(|| expected("weights.group_size", Some(size), "32, 64, 128 or 256"))?,
        _ => return Err(expected("weights.strategy", field("strategy"), "group or channel")),
    };
    let activations = group.get("input_activations").and_then(|inputs| inputs.get("num_bits"));
    let act_bits = match activations.and_then(Value::as_u64) {
        Some(bits @ (6 | 8)) => ActBits::Bits(bits as u8),
        _ => ActBits::Auto,
    };
    Ok(Weights { group: group_size, act_bits })
}

fn expected(what: &'static str, found: Option<&Value>, expected: &'static str) -> InteropError {
    let found = found.map_or_else(|| "missing".to_owned(), Value::to_string);
    InteropError::Config { what, found, expected }
}

#[cfg(test)]
mod tests {
    use super::{ActBits, Group, InteropError, Weights, parse, render};
    use serde_json::{Value, json};

    fn config(weights: &Value, inputs: &Value) -> Value {
        json!({ "config_groups": { "group_0": { "weights": weights, "input_activations": inputs } } })
    }

    fn read(config: &Value) -> Result<Weights, InteropError> {
        parse(config.as_object().unwrap())
    }

    #[test]
    fn what_is_written_is_read() {
        for group in [Group::Columns(64), Group::Row] {
            assert_eq!(read(&render(group, &[])), Ok(Weights { group, act_bits: ActBits::Auto }));
        }
    }

    #[test]
    fn activations_are_taken_over() {
        let weights = json!({ "num_bits": 6, "strategy": "group", "group_size": 128 });
        let read = read(&config(&weights, &json!({ "num_bits": 8 }))).unwrap();
        assert_eq!(read.act_bits, ActBits::Bits(8));
    }

    #[test]
    fn other_schemes_are_refused_by_field() {
        for (weights, field) in [
            (json!({ "num_bits": 4, "strategy": "group", "group_size": 128 }), "weights.num_bits"),
            (json!({ "num_bits": 6, "type": "float", "strategy": "channel" }), "weights.type"),
            (json!({ "num_bits": 6, "symmetric": false, "strategy": "channel" }), "weights.symmetric"),
            (json!({ "num_bits": 6, "strategy": "block" }), "weights.strategy"),
            (json!({ "num_bits": 6, "strategy": "group", "group_size": 48 }), "weights.group_size"),
        ] {
            let error = read(&config(&weights, &Value::Null)).unwrap_err();
            assert!(matches!(error, InteropError::Config { what, .. } if what == field), "{error}");
        }
        assert!(read(&json!({})).is_err());
    }
}
