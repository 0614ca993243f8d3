//! Patterns that name tensors: exact, by suffix, or by regular expression.

use std::fmt;

use regex::Regex;

use super::SelectError;

/// One pattern, with the same meaning on the command line, in Python and in config.json.
///
/// - `model.layers.0.mlp.down_proj`: that module or tensor, by its full name;
/// - `down_proj`, `mlp.down_proj`: every module or tensor whose name ends so, at a dot;
/// - `re:.*layers\.[0-3]\..*`: every module or tensor whose name the regular expression
///   matches from its start.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    regex: Option<Regex>,
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// [`SelectError::Regex`] when the text after `re:` is no regular expression,
    /// [`SelectError::EmptyPattern`] when there is no text.
    pub fn new(text: &str) -> Result<Self, SelectError> {
        let regex = match text.strip_prefix("re:") {
            Some(expression) => Some(Regex::new(&format!("^(?:{expression})")).map_err(|error| {
                SelectError::Regex { pattern: text.to_owned(), message: error.to_string() }
            })?),
            None if text.is_empty() => return Err(SelectError::EmptyPattern),
            None => None,
        };
        Ok(Self { text: text.to_owned(), regex })
    }

    /// Whether the pattern names the tensor `name` or the module it is the weight of.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let module = module_of(name);
        match &self.regex {
            Some(regex) => regex.is_match(name) || regex.is_match(module),
            None => [name, module].into_iter().any(|candidate| {
                candidate
                    .strip_suffix(self.text.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The module of a tensor: its name without `.weight`.
#[must_use]
pub fn module_of(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::{Pattern, SelectError};

    #[test]
    fn each_kind_matches_what_it_says() {
        let name = "model.layers.10.mlp.down_proj.weight";
        for (pattern, expected) in [
            ("model.layers.10.mlp.down_proj.weight", true),
            ("model.layers.10.mlp.down_proj", true),
            ("down_proj", true),
            ("mlp.down_proj", true),
            ("weight", true),
            ("proj", false),
            ("mlp", false),
            ("model.layers.1", false),
            ("re:.*down", true),
            ("re:down", false),
            (r"re:model\.layers\.10\.", true),
            (r"re:model\.layers\.\d\.", false),
            ("re:.*down_proj$", true),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().matches(name), expected, "{pattern}");
        }
    }

    #[test]
    fn a_faulty_pattern_is_named() {
        assert!(matches!(Pattern::new("re:("), Err(SelectError::Regex { pattern, .. }) if pattern == "re:("));
        assert!(matches!(Pattern::new(""), Err(SelectError::EmptyPattern)));
    }
}
