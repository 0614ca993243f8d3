//! What a tensor is for, read from its name and shape.

use std::fmt;

/// The part a tensor plays in a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Weight `[N, K]` of a linear layer.
    Linear,
    /// Weights `[E, N, K]` of all experts of a layer in one tensor.
    Experts,
    /// The table `[vocabulary, hidden]` of token embeddings.
    Embedding,
    /// The projection `[vocabulary, hidden]` onto the vocabulary.
    LmHead,
    /// A table of positions, token types or the like.
    Position,
    /// The gate that chooses experts.
    Router,
    /// Scale of a normalization.
    Norm,
    /// Anything in a vision or audio tower, or in the bridge from it.
    Tower,
    /// Kernel of a convolution.
    Convolution,
    /// Added to the output of a layer.
    Bias,
    /// None of these.
    Other,
}

impl Role {
    /// The role of the tensor `name` of shape `shape`.
    #[must_use]
    pub fn of(name: &str, shape: &[usize]) -> Self {
        let parts: Vec<&str> = name.split('.').collect();
        let leaf = parts[parts.len() - 1];
        if parts.iter().any(|part| TOWERS.contains(part)) {
            return Self::Tower;
        }
        if leaf == "bias" || leaf.ends_with("_bias") {
            return Self::Bias;
        }
        // fused experts are parameters of their own: `experts.gate_up_proj`, mostly without `.weight`
        let path = if leaf == "weight" { &parts[..parts.len() - 1] } else { &parts[..] };
        if shape.len() == 3 && path.len() >= 2 && path[path.len() - 2] == "experts" {
            return Self::Experts;
        }
        match path.last() {
            Some(module) if leaf == "weight" => Self::of_weight(path, module, shape.len()),
            _ => Self::Other,
        }
    }

    /// The role of the `weight` of the module at `path`, whose own name is `module`.
    fn of_weight(path: &[&str], module: &str, rank: usize) -> Self {
        let lower = module.to_ascii_lowercase();
        if HEADS.contains(&module) || (path.len() == 1 && module == "output") {
            Self::LmHead
        } else if lower.contains("norm") || matches!(module, "ln_1" | "ln_2" | "ln_f") {
            Self::Norm
        } else if lower.contains("position") || lower.contains("token_type") || module == "wpe" {
            Self::Position
        } else if lower.contains("embed") || module == "wte" || (path.len() == 1 && module == "shared") {
            Self::Embedding
        } else if ROUTERS.contains(&module) || path.contains(&"router") {
            Self::Router
        } else {
            match rank {
                2 => Self::Linear,
                3.. => Self::Convolution,
                _ => Self::Other,
            }
        }
    }

    /// The plural a reader would use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear layers",
            Self::Experts => "fused experts",
            Self::Embedding => "embeddings",
            Self::LmHead => "lm_head",
            Self::Position => "position tables",
            Self::Router => "routers",
            Self::Norm => "norms",
            Self::Tower => "vision and audio towers",
            Self::Convolution => "convolutions",
            Self::Bias => "biases",
            Self::Other => "other tensors",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Modules under which everything belongs to another modality.
const TOWERS: [&str; 14] = [
    "audio_encoder",
    "audio_model",
    "audio_tower",
    "embed_audio",
    "embed_vision",
    "image_encoder",
    "mm_projector",
    "multi_modal_projector",
    "vision_backbone",
    "vision_embed_tokens",
    "vision_encoder",
    "vision_model",
    "vision_tower",
    "visual",
];

/// Modules that project onto the vocabulary.
const HEADS: [&str; 2] = ["lm_head", "embed_out"];

/// Modules that choose experts.
const ROUTERS: [&str; 3] = ["gate", "router", "shared_expert_gate"];

#[cfg(test)]
mod tests {
    use super::Role;

    #[test]
    fn names_of_real_checkpoints() {
        let cases: &[(&str, &[usize], Role)] = &[
            ("model.layers.0.self_attn.q_proj.weight", &[64, 64], Role::Linear),
            ("model.layers.0.self_attn.q_proj.bias", &[64], Role::Bias),
            ("model.layers.0.mlp.gate_proj.weight", &[64, 64], Role::Linear),
            ("model.layers.0.mlp.gate.weight", &[8, 64], Role::Router),
            ("model.layers.0.block_sparse_moe.gate.weight", &[8, 64], Role::Router),
            ("model.layers.0.block_sparse_moe.experts.3.w1.weight", &[64, 64], Role::Linear),
            ("model.layers.0.mlp.shared_expert_gate.weight", &[1, 64], Role::Router),
            ("model.layers.0.mlp.shared_expert.up_proj.weight", &[64, 64], Role::Linear),
            ("model.layers.0.mlp.experts.gate_up_proj", &[4, 64, 64], Role::Experts),
            ("model.layers.0.mlp.experts.down_proj", &[4, 64, 64], Role::Experts),
            ("model.layers.0.mlp.experts.gate_up_proj_bias", &[4, 64], Role::Bias),
            ("model.layers.0.mlp.router.weight", &[8, 64], Role::Router),
            ("model.layers.0.input_layernorm.weight", &[64], Role::Norm),
            ("model.layers.0.self_attn.q_norm.weight", &[16], Role::Norm),
            ("model.norm.weight", &[64], Role::Norm),
            ("model.embed_tokens.weight", &[256, 64], Role::Embedding),
            ("transformer.wte.weight", &[256, 64], Role::Embedding),
            ("transformer.wpe.weight", &[256, 64], Role::Position),
            ("bert.embeddings.word_embeddings.weight", &[256, 64], Role::Embedding),
            ("bert.embeddings.position_embeddings.weight", &[256, 64], Role::Position),
            ("bert.embeddings.LayerNorm.weight", &[64], Role::Norm),
            ("lm_head.weight", &[256, 64], Role::LmHead),
            ("output.weight", &[256, 64], Role::LmHead),
            ("bert.encoder.layer.0.attention.output.weight", &[64, 64], Role::Linear),
            ("visual.blocks.0.attn.qkv.weight", &[64, 64], Role::Tower),
            ("vision_tower.embeddings.patch_embedding.weight", &[64, 3, 14, 14], Role::Tower),
            ("multi_modal_projector.linear_1.weight", &[64, 64], Role::Tower),
            ("model.layers.0.linear_attn.conv1d.weight", &[64, 1, 4], Role::Convolution),
            ("layers.2.weight", &[128, 1024], Role::Linear),
            ("weight", &[128, 1024], Role::Other),
            ("model.layers.0.linear_attn.A_log", &[32], Role::Other),
        ];
        for (name, shape, role) in cases {
            assert_eq!(Role::of(name, shape), *role, "{name}");
        }
    }
}
