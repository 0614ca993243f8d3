//! The tensors of a model, from its configuration alone.

use serde_json::Value;

use super::error::PlanError;
use super::family::{AttentionBias, FAMILIES, Family, FeedForward};
use crate::checkpoint::ModelConfig;
use crate::dtype::FloatType;

/// The most layers, experts or channels believed: far beyond any model, and small enough
/// that sizes fit 64 bits and lists fit memory.
const LIMITS: [(&str, u64); 3] = [("num_hidden_layers", 10_000), ("num_experts", 10_000), ("", 1 << 28)];

/// A tensor that the model will have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorShape {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
}

/// The tensors of the model that `config` describes, as transformers saves it, and their type.
///
/// # Errors
/// [`PlanError`] when the model type is unknown, or a field is missing or absurd.
pub fn tensors_of(config: &ModelConfig) -> Result<(FloatType, Vec<TensorShape>), PlanError> {
    if let Some(method) = config.quant_method() {
        return Err(PlanError::Quantized { method: method.to_owned() });
    }
    let found = config.model_type().unwrap_or_default();
    let Some(family) = FAMILIES.iter().find(|family| family.model_type == found) else {
        let known: Vec<_> = FAMILIES.iter().map(|family| family.model_type).collect();
        return Err(PlanError::ModelType { found: found.to_owned(), expected: known.join(", ") });
    };
    let fields = Fields(config);
    let mut model = Model { family, fields, tensors: Vec::new() };
    model.all()?;
    Ok((fields.dtype()?, model.tensors))
}

/// Typed access to the fields of a configuration.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a ModelConfig);

impl Fields<'_> {
    fn fault(field: &'static str, value: Option<&Value>, expected: &'static str) -> PlanError {
        let found = value.map_or_else(|| "missing".to_owned(), Value::to_string);
        PlanError::Field { field, found, expected }
    }

    fn optional(self, field: &'static str) -> Result<Option<usize>, PlanError> {
        let Some(value) = self.0.field(field) else { return Ok(None) };
        let number = value.as_u64().ok_or_else(|| Self::fault(field, Some(value), "a whole number"))?;
        let limit = LIMITS.iter().find(|(name, _)| *name == field).unwrap_or(&LIMITS[2]).1;
        if number > limit {
            return Err(PlanError::Limit { field, found: number, limit });
        }
        Ok(Some(number as usize))
    }

    fn size(self, field: &'static str) -> Result<usize, PlanError> {
        match self.optional(field)? {
            Some(size) if size > 0 => Ok(size),
            _ => Err(Self::fault(field, self.0.field(field), "a positive number")),
        }
    }

    fn flag(self, field: &str) -> bool {
        self.0.field(field).and_then(Value::as_bool).unwrap_or(false)
    }

    fn dtype(self) -> Result<FloatType, PlanError> {
        // renamed from `torch_dtype` in transformers 5; weights are published in bfloat16 where it is missing
        let Some(value) = self.0.field("dtype").or_else(|| self.0.field("torch_dtype")) else {
            return Ok(FloatType::BF16);
        };
        value
            .as_str()
            .and_then(|name| name.parse().ok())
            .ok_or_else(|| Self::fault("dtype", Some(value), "float32, float16 or bfloat16"))
    }

    /// Layers without experts although the model has them.
    fn dense_layers(self) -> Vec<usize> {
        let listed = self.0.field("mlp_only_layers").and_then(Value::as_array);
        listed.into_iter().flatten().filter_map(Value::as_u64).map(|layer| layer as usize).collect()
    }
}

/// A model whose tensors are being listed.
struct Model<'a> {
    family: &'a Family,
    fields: Fields<'a>,
    tensors: Vec<TensorShape>,
}

impl Model<'_> {
    fn add(&mut self, name: String, shape: &[usize]) {
        self.tensors.push(TensorShape { name, shape: shape.to_vec() });
    }

    fn linear(&mut self, module: &str, rows: usize, columns: usize, bias: bool) {
        self.add(format!("{module}.weight"), &[rows, columns]);
        if bias {
            self.add(format!("{module}.bias"), &[rows]);
        }
    }

    fn all(&mut self) -> Result<(), PlanError> {
        let (vocabulary, hidden) = (self.fields.size("vocab_size")?, self.fields.size("hidden_size")?);
        self.linear("model.embed_tokens", vocabulary, hidden, false);
        for layer in 0..self.fields.size("num_hidden_layers")? {
            let prefix = format!("model.layers.{layer}");
            for norm in self.family.layer_norms {
                self.add(format!("{prefix}.{norm}.weight"), &[hidden]);
            }
            self.attention(&prefix, hidden)?;
            self.feed_forward(&prefix, layer, hidden)?;
        }
        self.add("model.norm.weight".into(), &[hidden]);
        if !self.fields.0.tied() {
            self.linear("lm_head", vocabulary, hidden, false);
        }
        Ok(())
    }

    fn attention(&mut self, prefix: &str, hidden: usize) -> Result<(), PlanError> {
        let heads = self.fields.size("num_attention_heads")?;
        let kv_heads = self.fields.optional("num_key_value_heads")?.unwrap_or(heads);
        let width = self.fields.optional("head_dim")?.unwrap_or(hidden / heads);
        let (q, kv) = (heads * width, kv_heads * width);
        let (qkv_bias, o_bias) = match self.family.bias {
            AttentionBias::Qkv => (true, false),
            AttentionBias::Never => (false, false),
            AttentionBias::Field => (self.fields.flag("attention_bias"), self.fields.flag("attention_bias")),
        };
        if self.family.fused_qkv {
            self.linear(&format!("{prefix}.self_attn.qkv_proj"), q + 2 * kv, hidden, qkv_bias);
        } else {
            for (name, rows) in [("q_proj", q), ("k_proj", kv), ("v_proj", kv)] {
                self.linear(&format!("{prefix}.self_attn.{name}"), rows, hidden, qkv_bias);
            }
        }
        self.linear(&format!("{prefix}.self_attn.o_proj"), hidden, q, o_bias);
        if self.family.head_norms {
            for norm in ["q_norm", "k_norm"] {
                self.add(format!("{prefix}.self_attn.{norm}.weight"), &[width]);
            }
        }
        Ok(())
    }

    fn feed_forward(&mut self, prefix: &str, layer: usize, hidden: usize) -> Result<(), PlanError> {
        let bias = self.family.mlp_bias && self.fields.flag("mlp_bias");
        let mlp = format!("{prefix}.mlp");
        match self.family.feed_forward {
            FeedForward::Fused => {
                let inner = self.fields.size("intermediate_size")?;
                self.linear(&format!("{mlp}.gate_up_proj"), 2 * inner, hidden, bias);
                self.linear(&format!("{mlp}.down_proj"), hidden, inner, bias);
            }
            FeedForward::Mixtral => {
                let inner = self.fields.size("intermediate_size")?;
                let experts = self.fields.size("num_local_experts")?;
                let moe = format!("{prefix}.block_sparse_moe");
                self.linear(&format!("{moe}.gate"), experts, hidden, false);
                for expert in 0..experts {
                    self.gated(&format!("{moe}.experts.{expert}"), ["w1", "w3", "w2"], hidden, inner, false);
                }
            }
            FeedForward::Qwen | FeedForward::QwenShared if self.has_experts(layer)? => {
                let inner = self.fields.size("moe_intermediate_size")?;
                let experts = self.fields.size("num_experts")?;
                self.linear(&format!("{mlp}.gate"), experts, hidden, false);
                for expert in 0..experts {
                    self.gated(&format!("{mlp}.experts.{expert}"), GATED, hidden, inner, false);
                }
                if self.family.feed_forward == FeedForward::QwenShared {
                    let shared = self.fields.size("shared_expert_intermediate_size")?;
                    self.gated(&format!("{mlp}.shared_expert"), GATED, hidden, shared, false);
                    self.linear(&format!("{mlp}.shared_expert_gate"), 1, hidden, false);
                }
            }
            FeedForward::Gated | FeedForward::Qwen | FeedForward::QwenShared => {
                let inner = self.fields.size("intermediate_size")?;
                self.gated(&mlp, GATED, hidden, inner, bias);
            }
        }
        Ok(())
    }

    fn gated(&mut self, module: &str, names: [&str; 3], hidden: usize, inner: usize, bias: bool) {
        let [gate, up, down] = names;
        self.linear(&format!("{module}.{gate}"), inner, hidden, bias);
        self.linear(&format!("{module}.{up}"), inner, hidden, bias);
        self.linear(&format!("{module}.{down}"), hidden, inner, bias);
    }

    fn has_experts(&self, layer: usize) -> Result<bool, PlanError> {
        let step = self.fields.optional("decoder_sparse_step")?.unwrap_or(1).max(1);
        Ok((layer + 1).is_multiple_of(step) && !self.fields.dense_layers().contains(&layer))
    }
}

const GATED: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

#[cfg(test)]
mod tests {
    use super::{FloatType, ModelConfig, PlanError, tensors_of};

    fn config(text: &str) -> ModelConfig {
        ModelConfig::new(serde_json::from_str(text).unwrap())
    }

    fn weights(text: &str) -> usize {
        let (_, tensors) = tensors_of(&config(text)).unwrap();
        tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum()
    }

    // the published parameter counts
    #[test]
    fn real_models_have_their_published_number_of_weights() {
        let llama = r#"{"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": false}"#;
        assert_eq!(weights(llama), 8_030_261_248);
        let qwen2 = r#"{"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
            "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": true}"#;
        assert_eq!(weights(qwen2), 494_032_768);
        let qwen3 = r#"{"model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
            "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
            "tie_word_embeddings": true}"#;
        assert_eq!(weights(qwen3), 596_049_920);
        let mixtral = r#"{"model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8,
            "vocab_size": 32000, "tie_word_embeddings": false}"#;
        assert_eq!(weights(mixtral), 46_702_792_704);
        let qwen3_moe = r#"{"model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144,
            "moe_intermediate_size": 768, "num_hidden_layers": 48, "num_attention_heads": 32,
            "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128, "vocab_size": 151936,
            "decoder_sparse_step": 1, "mlp_only_layers": [], "tie_word_embeddings": false}"#;
        assert_eq!(weights(qwen3_moe), 30_532_122_624);
        let gemma2 = r#"{"model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
            "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 256000}"#;
        assert_eq!(weights(gemma2), 2_614_341_888);
    }

    #[test]
    fn faults_name_the_field() {
        let error = |text| tensors_of(&config(text)).unwrap_err();
        assert!(matches!(error("{}"), PlanError::ModelType { found, .. } if found.is_empty()));
        assert!(matches!(
            error(r#"{"model_type": "llama"}"#),
            PlanError::Field { field: "vocab_size", found, .. } if found == "missing"
        ));
        assert!(matches!(
            error(r#"{"model_type": "llama", "vocab_size": 10, "hidden_size": -4}"#),
            PlanError::Field { field: "hidden_size", .. }
        ));
        assert!(matches!(
            error(
                r#"{"model_type": "llama", "vocab_size": 10, "hidden_size": 64, "num_hidden_layers": 18446744073709551615}"#
            ),
            PlanError::Limit { field: "num_hidden_layers", .. }
        ));
        assert!(matches!(
            error(r#"{"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}"#),
            PlanError::Quantized { method } if method == "gptq"
        ));
    }

    #[test]
    fn the_type_of_weights_is_under_either_name() {
        let base = r#"{"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8,
            "num_hidden_layers": 1, "num_attention_heads": 1"#;
        for (extra, dtype) in [
            ("", FloatType::BF16),
            (r#", "torch_dtype": "float32""#, FloatType::F32),
            (r#", "dtype": "float16""#, FloatType::F16),
        ] {
            assert_eq!(tensors_of(&config(&format!("{base}{extra}}}"))).unwrap().0, dtype);
        }
    }
}
