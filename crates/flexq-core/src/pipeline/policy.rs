//! How many bits activations get at run time: a default and exceptions, kept in config.json.

use std::path::Path;

use serde_json::{Map, Value};

use super::error::PipelineError;
use crate::checkpoint::read_json;
use crate::error::{Error, Result};
use crate::select::{Pattern, SelectError};

/// Bits of an activation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ActBits {
    /// The kernel's choice: 8 where integer units run, 16 elsewhere.
    #[default]
    Auto,
    /// 16, 8 or 6.
    Bits(u8),
}

impl ActBits {
    fn from_json(value: &Value) -> Result<Self, PipelineError> {
        match (value.as_str(), value.as_u64()) {
            (Some("auto"), _) => Ok(Self::Auto),
            (_, Some(bits @ (6 | 8 | 16))) => Ok(Self::Bits(bits as u8)),
            _ => Err(PipelineError::Policy { message: format!("{value} is none of 6, 8, 16 and \"auto\"") }),
        }
    }

    fn to_json(self) -> Value {
        match self {
            Self::Auto => "auto".into(),
            Self::Bits(bits) => bits.into(),
        }
    }
}

/// Bits of activations per layer.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// What layers get that no override names.
    pub default: ActBits,
    /// Layers that get something else; the first match counts.
    pub overrides: Vec<(Pattern, ActBits)>,
}

impl Policy {
    /// The policy of the flexq paper (arXiv 2508.04405): 8 bits into `down_proj`, whose inputs have the
    /// largest outliers, 6 elsewhere.
    ///
    /// # Errors
    /// None in practice: the pattern is a constant.
    pub fn paper() -> Result<Self, SelectError> {
        Ok(Self {
            default: ActBits::Bits(6),
            overrides: vec![(Pattern::new("down_proj")?, ActBits::Bits(8))],
        })
    }

    /// The policy named `paper` or `auto`, or read from a file:
    /// `{"act_bits": 6, "act_bits_overrides": {"down_proj": 8}}`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Checkpoint`] or [`Error::Pipeline`] for a faulty file.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::default()),
            "paper" => Ok(Self::paper()?),
            _ => {
                let path = Path::new(name);
                let json: Map<String, Value> = read_json(path)?
                    .ok_or_else(|| Error::io("open", path, std::io::ErrorKind::NotFound.into()))?;
                Self::from_json(&json).map_err(|fault| Error::pipeline(path, fault))
            }
        }
    }

    fn from_json(json: &Map<String, Value>) -> Result<Self, PipelineError> {
        let mut policy = Self::default();
        for (key, value) in json {
            match (key.as_str(), value) {
                ("act_bits", bits) => policy.default = ActBits::from_json(bits)?,
                ("act_bits_overrides", Value::Object(overrides)) => {
                    for (pattern, bits) in overrides {
                        let pattern = Pattern::new(pattern)
                            .map_err(|error| PipelineError::Policy { message: error.to_string() })?;
                        policy.overrides.push((pattern, ActBits::from_json(bits)?));
                    }
                }
                _ => return Err(PipelineError::Policy { message: format!("unknown field {key:?}") }),
            }
        }
        Ok(policy)
    }

    /// The patterns of the overrides, for [`crate::select::check_matched`].
    pub(super) fn patterns(&self) -> Vec<Pattern> {
        self.overrides.iter().map(|(pattern, _)| pattern.clone()).collect()
    }

    /// The fields `act_bits` and `act_bits_overrides` of a `quantization_config`.
    pub(super) fn fields(&self) -> [(&'static str, Value); 2] {
        let overrides: Map<String, Value> =
            self.overrides.iter().map(|(pattern, bits)| (pattern.to_string(), bits.to_json())).collect();
        [("act_bits", self.default.to_json()), ("act_bits_overrides", overrides.into())]
    }
}

#[cfg(test)]
mod tests {
    use super::{ActBits, Policy};

    #[test]
    fn a_policy_survives_its_json() {
        let json = serde_json::from_str(r#"{"act_bits": 6, "act_bits_overrides": {"a": 8, "re:b": "auto"}}"#);
        let policy = Policy::from_json(&json.unwrap()).unwrap();
        assert_eq!(policy.default, ActBits::Bits(6));
        let [(_, default), (_, overrides)] = policy.fields();
        assert_eq!((default, overrides), (6.into(), serde_json::json!({"a": 8, "re:b": "auto"})));
    }

    #[test]
    fn faults_are_refused() {
        for text in [
            r#"{"act_bits": 7}"#,
            r#"{"act_bit": 8}"#,
            r#"{"act_bits_overrides": {"re:(": 8}}"#,
            r#"{"act_bits_overrides": 8}"#,
        ] {
            assert!(Policy::from_json(&serde_json::from_str(text).unwrap()).is_err(), "{text}");
        }
    }
}
