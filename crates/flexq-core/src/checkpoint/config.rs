//! `config.json`: the few of its fields that matter to weights.

use serde_json::{Map, Value};

use crate::select::Hints;

/// The configuration's file name.
pub const CONFIG: &str = "config.json";
/// The field that says how weights are stored.
pub const QUANTIZATION: &str = "quantization_config";

/// Model types whose head shares the embedding unless the configuration says otherwise.
const TIED_BY_DEFAULT: [&str; 9] =
    ["bloom", "cohere", "cohere2", "gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "opt"];

/// A model's configuration, fields in their order.
#[derive(Clone, Debug, Default)]
pub struct ModelConfig {
    json: Map<String, Value>,
}

impl ModelConfig {
    /// A configuration of these fields.
    #[must_use]
    pub fn new(json: Map<String, Value>) -> Self {
        Self { json }
    }

    /// All fields.
    #[must_use]
    pub fn json(&self) -> &Map<String, Value> {
        &self.json
    }

    /// A field of the language model: of `text_config` where there is one and it has the
    /// field, else of the configuration itself.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Value> {
        let nested = self.json.get("text_config").and_then(|text| text.get(name));
        nested.or_else(|| self.json.get(name)).filter(|value| !value.is_null())
    }

    /// `model_type` of the whole model.
    #[must_use]
    pub fn model_type(&self) -> Option<&str> {
        self.json.get("model_type").and_then(Value::as_str)
    }

    /// Whether the head shares the weights of the embedding.
    #[must_use]
    pub fn tied(&self) -> bool {
        self.json
            .get("tie_word_embeddings")
            .or_else(|| self.field("tie_word_embeddings"))
            .and_then(Value::as_bool)
            .unwrap_or_else(|| self.model_type().is_some_and(|kind| TIED_BY_DEFAULT.contains(&kind)))
    }

    /// The field `quantization_config`, where it is an object.
    #[must_use]
    pub fn quantization(&self) -> Option<&Map<String, Value>> {
        self.json.get(QUANTIZATION).and_then(Value::as_object)
    }

    /// `quantization_config.quant_method`, where the model is quantized.
    #[must_use]
    pub fn quant_method(&self) -> Option<&str> {
        self.quantization()
            .map(|config| config.get("quant_method").and_then(Value::as_str).unwrap_or("unknown"))
    }

    /// The text of this configuration with another `quantization_config`, or without any.
    #[must_use]
    pub fn with_quantization(&self, quantization: Option<Value>) -> String {
        let mut json = self.json.clone();
        match quantization {
            Some(value) => json.insert(QUANTIZATION.to_owned(), value),
            None => json.shift_remove(QUANTIZATION),
        };
        format!("{:#}\n", Value::Object(json))
    }

    /// What tells tensors apart that names and shapes alone do not.
    #[must_use]
    pub fn hints(&self) -> Hints {
        let hidden = self.field("hidden_size").and_then(Value::as_u64);
        Hints {
            model_type: self.model_type().map(str::to_owned),
            hidden_size: hidden.and_then(|size| usize::try_from(size).ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ModelConfig;

    fn config(text: &str) -> ModelConfig {
        ModelConfig::new(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn tied_is_explicit_nested_or_by_model_type() {
        assert!(config(r#"{"tie_word_embeddings": true}"#).tied());
        assert!(!config(r#"{"model_type": "gemma", "tie_word_embeddings": false}"#).tied());
        assert!(config(r#"{"model_type": "gemma2"}"#).tied());
        assert!(!config(r#"{"model_type": "llama"}"#).tied());
        assert!(config(r#"{"text_config": {"tie_word_embeddings": true}}"#).tied());
    }

    #[test]
    fn quantization_is_replaced_and_the_order_kept() {
        let before = config(r#"{"z": 1, "quantization_config": {"quant_method": "x"}, "a": 2}"#);
        assert_eq!(before.quant_method(), Some("x"));
        let after = before.with_quantization(None);
        assert_eq!(after, "{\n  \"z\": 1,\n  \"a\": 2\n}\n");
        assert!(before.with_quantization(Some(1.into())).contains("\"quantization_config\": 1,\n  \"a\""));
    }
}
