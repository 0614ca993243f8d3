//! What tells apart the model types that descend from Llama.

/// Which projections of the attention have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttentionBias {
    /// q, k and v, always.
    Qkv,
    /// q, k, v and o, if the field `attention_bias` says so.
    Field,
    /// None.
    Never,
}

/// How the feed-forward part is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FeedForward {
    /// `mlp.{gate,up,down}_proj`.
    Gated,
    /// `mlp.gate_up_proj` and `mlp.down_proj`.
    Fused,
    /// `block_sparse_moe.gate` and `block_sparse_moe.experts.E.{w1,w2,w3}`.
    Mixtral,
    /// `mlp.gate` and `mlp.experts.E.{gate,up,down}_proj` in most layers.
    Qwen,
    /// The same with a shared expert and its gate.
    QwenShared,
}

/// One model type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    pub model_type: &'static str,
    pub bias: AttentionBias,
    pub feed_forward: FeedForward,
    /// Whether `mlp_bias` gives the feed-forward part biases.
    pub mlp_bias: bool,
    /// Whether q, k and v are one tensor.
    pub fused_qkv: bool,
    /// Whether queries and keys are normalized per head.
    pub head_norms: bool,
    /// The norms of a layer.
    pub layer_norms: &'static [&'static str],
}

const TWO_NORMS: &[&str] = &["input_layernorm", "post_attention_layernorm"];
const FOUR_NORMS: &[&str] = &[
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
];

const LLAMA: Family = Family {
    model_type: "llama",
    bias: AttentionBias::Field,
    feed_forward: FeedForward::Gated,
    mlp_bias: true,
    fused_qkv: false,
    head_norms: false,
    layer_norms: TWO_NORMS,
};

/// Every model type known.
pub(super) const FAMILIES: [Family; 11] = [
    LLAMA,
    Family { model_type: "mistral", bias: AttentionBias::Never, mlp_bias: false, ..LLAMA },
    Family { model_type: "qwen2", bias: AttentionBias::Qkv, mlp_bias: false, ..LLAMA },
    Family { model_type: "qwen3", mlp_bias: false, head_norms: true, ..LLAMA },
    Family { model_type: "gemma", mlp_bias: false, ..LLAMA },
    Family { model_type: "gemma2", mlp_bias: false, layer_norms: FOUR_NORMS, ..LLAMA },
    Family { model_type: "gemma3_text", mlp_bias: false, head_norms: true, layer_norms: FOUR_NORMS, ..LLAMA },
    Family {
        model_type: "phi3",
        bias: AttentionBias::Never,
        mlp_bias: false,
        fused_qkv: true,
        feed_forward: FeedForward::Fused,
        ..LLAMA
    },
    Family {
        model_type: "mixtral",
        bias: AttentionBias::Never,
        mlp_bias: false,
        feed_forward: FeedForward::Mixtral,
        ..LLAMA
    },
    Family {
        model_type: "qwen2_moe",
        bias: AttentionBias::Qkv,
        mlp_bias: false,
        feed_forward: FeedForward::QwenShared,
        ..LLAMA
    },
    Family {
        model_type: "qwen3_moe",
        mlp_bias: false,
        head_norms: true,
        feed_forward: FeedForward::Qwen,
        ..LLAMA
    },
];
