//! Which tensors of a checkpoint are quantized, and why the others are not.

mod pattern;
mod role;

use std::fmt;
use std::str::FromStr;

pub use pattern::{Pattern, module_of};
pub use role::Role;

use crate::error::Error;
use crate::format::Dtype;

/// A starting point for [`Rules`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Preset {
    /// Linear layers and fused experts; what every serving engine accepts.
    #[default]
    Linear,
    /// Also the token embeddings and `lm_head`: the smallest file.
    Full,
}

impl Preset {
    /// `linear` or `full`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Full => "full",
        }
    }

    fn takes(self, role: Role) -> bool {
        match role {
            Role::Linear | Role::Experts => true,
            Role::Embedding | Role::LmHead => self == Self::Full,
            _ => false,
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Preset {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "linear" => Ok(Self::Linear),
            "full" => Ok(Self::Full),
            _ => Err(Error::unknown("preset", name, "linear, full")),
        }
    }
}

/// A set of rules that does not fit the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// A pattern that names nothing.
    #[error("{option} pattern {pattern:?} matches no tensor of the checkpoint")]
    Unmatched {
        /// Where it was given: `include`, `exclude` or `policy`.
        option: &'static str,
        /// The pattern.
        pattern: String,
    },
    /// Text after `re:` that is no regular expression.
    #[error("pattern {pattern:?} is no regular expression: {message}")]
    Regex {
        /// The pattern.
        pattern: String,
        /// What the parser says.
        message: String,
    },
    /// A pattern without text.
    #[error("a pattern is empty")]
    EmptyPattern,
}

/// Why a tensor stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The preset leaves tensors of this role alone.
    Role(Role),
    /// Its elements are no floats of 16 or 32 bits.
    NotFloat,
    /// It is no matrix or stack of matrices.
    NotMatrix,
    /// It has no elements.
    Empty,
    /// Stored as `[K, N]`, so that groups along the last axis would not be groups along K.
    Transposed,
    /// An `exclude` pattern names it.
    Excluded,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role(role) => role.fmt(f),
            Self::NotFloat => f.write_str("no 16- or 32-bit floats"),
            Self::NotMatrix => f.write_str("no matrices"),
            Self::Empty => f.write_str("empty"),
            Self::Transposed => f.write_str("stored transposed, as [K, N]"),
            Self::Excluded => f.write_str("excluded by pattern"),
        }
    }
}

/// What is known of a tensor before its data is read.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: &'a [usize],
}

/// What the model's configuration adds to names and shapes.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    /// `model_type` of config.json.
    pub model_type: Option<String>,
    /// `hidden_size` of config.json.
    pub hidden_size: Option<usize>,
}

impl Hints {
    /// Whether `tensor` is stored with K before N.
    fn transposed(&self, tensor: &Candidate<'_>, role: Role) -> bool {
        match (role, self.model_type.as_deref()) {
            // the first keep every linear weight as `Conv1D`, [K, N], the others their experts as [E, K, N]
            (Role::Linear, Some("gpt2" | "imagegpt" | "openai-gpt"))
            | (Role::Experts, Some("gpt_oss" | "llama4" | "llama4_text")) => true,
            // a stack of gates and ups maps from the hidden size, which must be K
            (Role::Experts, _) if module_of(tensor.name).ends_with("gate_up_proj") => {
                self.hidden_size.is_some_and(|hidden| tensor.shape[1] == hidden && tensor.shape[2] != hidden)
            }
            _ => false,
        }
    }
}

/// Decides for each tensor: a preset, tensors added to it, tensors taken from it.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// What is taken without patterns.
    pub preset: Preset,
    /// Tensors quantized although the preset leaves them alone.
    pub include: Vec<Pattern>,
    /// Tensors kept although the preset or `include` takes them.
    pub exclude: Vec<Pattern>,
}

impl Rules {
    /// One decision per tensor, in order: `None` to quantize it, or why it stays as it is.
    ///
    /// # Errors
    /// [`SelectError::Unmatched`] when a pattern names no tensor.
    pub fn decide(
        &self,
        tensors: &[Candidate<'_>],
        hints: &Hints,
    ) -> Result<Vec<Option<Reason>>, SelectError> {
        for (option, patterns) in [("include", &self.include), ("exclude", &self.exclude)] {
            check_matched(option, patterns, tensors)?;
        }
        Ok(tensors.iter().map(|tensor| self.reason(tensor, hints)).collect())
    }

    fn reason(&self, tensor: &Candidate<'_>, hints: &Hints) -> Option<Reason> {
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(tensor.name));
        let role = Role::of(tensor.name, tensor.shape);
        if !self.preset.takes(role) && !any(&self.include) {
            return Some(Reason::Role(role));
        }
        if any(&self.exclude) {
            return Some(Reason::Excluded);
        }
        if tensor.dtype.float().is_none() {
            return Some(Reason::NotFloat);
        }
        if !matches!(tensor.shape.len(), 2 | 3) {
            return Some(Reason::NotMatrix);
        }
        if tensor.shape.contains(&0) {
            return Some(Reason::Empty);
        }
        hints.transposed(tensor, role).then_some(Reason::Transposed)
    }
}

/// Checks that every pattern names at least one tensor.
///
/// # Errors
/// [`SelectError::Unmatched`] with the first that does not.
pub fn check_matched(
    option: &'static str,
    patterns: &[Pattern],
    tensors: &[Candidate<'_>],
) -> Result<(), SelectError> {
    match patterns.iter().find(|pattern| !tensors.iter().any(|tensor| pattern.matches(tensor.name))) {
        Some(pattern) => Err(SelectError::Unmatched { option, pattern: pattern.to_string() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Candidate, Dtype, Hints, Pattern, Preset, Reason, Role, Rules, SelectError};

    fn decide(rules: &Rules, name: &str, dtype: Dtype, shape: &[usize], hints: &Hints) -> Option<Reason> {
        rules.decide(&[Candidate { name, dtype, shape }], hints).unwrap().remove(0)
    }

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::new(text).unwrap()).collect()
    }

    #[test]
    fn presets_differ_in_embedding_and_head() {
        for (name, shape, linear, full) in [
            ("model.layers.0.mlp.up_proj.weight", [64, 64], true, true),
            ("model.embed_tokens.weight", [64, 64], false, true),
            ("lm_head.weight", [64, 64], false, true),
            ("model.layers.0.mlp.gate.weight", [64, 64], false, false),
            ("visual.blocks.0.mlp.up_proj.weight", [64, 64], false, false),
        ] {
            for (preset, taken) in [(Preset::Linear, linear), (Preset::Full, full)] {
                let rules = Rules { preset, ..Rules::default() };
                let reason = decide(&rules, name, Dtype::BF16, &shape, &Hints::default());
                assert_eq!(reason.is_none(), taken, "{preset} {name}");
            }
        }
    }

    #[test]
    fn include_adds_and_exclude_wins() {
        let rules =
            Rules { include: patterns(&["lm_head", "a"]), exclude: patterns(&["re:a"]), ..Rules::default() };
        let candidate = |name| Candidate { name, dtype: Dtype::F16, shape: &[8, 8] };
        let tensors = [candidate("lm_head.weight"), candidate("a.weight"), candidate("norm.weight")];
        assert_eq!(
            rules.decide(&tensors, &Hints::default()).unwrap(),
            [None, Some(Reason::Excluded), Some(Reason::Role(Role::Norm))]
        );
    }

    #[test]
    fn an_unmatched_pattern_is_an_error() {
        let rules = Rules { exclude: patterns(&["up_prj"]), ..Rules::default() };
        let tensors = [Candidate { name: "a.up_proj.weight", dtype: Dtype::F16, shape: &[8, 8] }];
        assert_eq!(
            rules.decide(&tensors, &Hints::default()),
            Err(SelectError::Unmatched { option: "exclude", pattern: "up_prj".into() })
        );
    }

    #[test]
    fn what_cannot_be_quantized_says_why() {
        let rules = Rules { include: patterns(&["weight"]), ..Rules::default() };
        let none = Hints::default();
        let gpt2 = Hints { model_type: Some("gpt2".into()), hidden_size: None };
        let hidden = Hints { model_type: None, hidden_size: Some(64) };
        for (name, dtype, shape, hints, reason) in [
            ("a.weight", Dtype::I8, &[8, 8][..], &none, Some(Reason::NotFloat)),
            ("a.weight", Dtype::F16, &[8], &none, Some(Reason::NotMatrix)),
            ("a.weight", Dtype::F16, &[8, 0], &none, Some(Reason::Empty)),
            ("a.weight", Dtype::F16, &[8, 8], &gpt2, Some(Reason::Transposed)),
            ("experts.gate_up_proj.weight", Dtype::F16, &[2, 64, 32], &hidden, Some(Reason::Transposed)),
            ("experts.gate_up_proj.weight", Dtype::F16, &[2, 32, 64], &hidden, None),
        ] {
            assert_eq!(decide(&rules, name, dtype, shape, hints), reason, "{name} {shape:?}");
        }
    }
}
