//! The `quantization_config` of a packed checkpoint.

use serde_json::{Map, Value};

use super::policy::Policy;
use crate::format::VERSION;
use crate::scheme::{BITS, Group, Scheme};
use crate::select::Rules;

/// What config.json says of the weights. `kept` are the modules that a loader would take
/// for quantized ones and that are not.
pub(crate) fn quantization_config<S: AsRef<str>>(
    scheme: &Scheme,
    policy: &Policy,
    rules: &Rules,
    kept: &[S],
) -> Value {
    let Scheme { group, rule, scale_type } = *scheme;
    let group = match group {
        Group::Columns(columns) => Value::from(columns),
        Group::Row => "row".into(),
    };
    let mut fields = Map::new();
    let mut set = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    set("quant_method", "flexq".into());
    set("version", VERSION.into());
    set("bits", BITS.into());
    set("group_size", group);
    set("scale_rule", rule.name().into());
    set("scale_dtype", scale_type.name().into());
    set("preset", rules.preset.name().into());
    if !rules.include.is_empty() {
        set("include", rules.include.iter().map(ToString::to_string).collect());
    }
    for (key, value) in policy.fields() {
        set(key, value);
    }
    set("modules_to_not_convert", kept.iter().map(AsRef::as_ref).collect());
    fields.into()
}
