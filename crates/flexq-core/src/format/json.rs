//! JSON that is not trusted: bounded nesting, no duplicate keys, typed errors.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::error::Category;

use super::error::{Document, FormatError};

/// Levels of brackets in the deepest document accepted. A header needs three and a
/// manifest four; the rest is room for fields of later releases.
const MAX_DEPTH: usize = 16;

/// What an object may hold as a value, where the key can decide what is expected.
pub(super) trait Value<'de>: Sized {
    /// Reads the value of `key`; nested pairs go through [`nested`] with the same `current`.
    fn read<A: MapAccess<'de>>(key: &str, map: &mut A, current: &RefCell<String>) -> Result<Self, A::Error>;
}

impl<'de, V: Deserialize<'de>> Value<'de> for V {
    fn read<A: MapAccess<'de>>(_: &str, map: &mut A, _: &RefCell<String>) -> Result<Self, A::Error> {
        map.next_value()
    }
}

/// A JSON object as its pairs in order, duplicates included.
pub(super) type Pairs<V> = Vec<(String, V)>;

/// Reads an object inside an object.
pub(super) fn nested<'de, V: Value<'de>, A: MapAccess<'de>>(
    map: &mut A,
    current: &RefCell<String>,
) -> Result<Pairs<V>, A::Error> {
    map.next_value_seed(PairsSeed { current, value: PhantomData })
}

/// Reads [`Pairs`], noting the key whose value is being read, so that errors can name it.
struct PairsSeed<'c, V> {
    current: &'c RefCell<String>,
    value: PhantomData<V>,
}

impl<'de, V: Value<'de>> DeserializeSeed<'de> for PairsSeed<'_, V> {
    type Value = Pairs<V>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Pairs<V>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, V: Value<'de>> Visitor<'de> for PairsSeed<'_, V> {
    type Value = Pairs<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<V>, A::Error> {
        let mut pairs = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            self.current.borrow_mut().clone_from(&key);
            let value = V::read(&key, &mut map, self.current)?;
            pairs.push((key, value));
        }
        self.current.borrow_mut().clear();
        Ok(pairs)
    }
}

/// The pairs of a document that is one JSON object.
pub(super) fn parse_pairs<'de, V: Value<'de>>(
    document: Document,
    text: &'de str,
) -> Result<Pairs<V>, FormatError> {
    check_depth(document, text)?;
    let current = RefCell::default();
    let mut parser = serde_json::Deserializer::from_str(text);
    PairsSeed { current: &current, value: PhantomData }
        .deserialize(&mut parser)
        .and_then(|pairs| parser.end().map(|()| pairs))
        .map_err(|error| fault(document, current.take(), &error))
}

/// A parser's error as ours.
fn fault(document: Document, entry: String, error: &serde_json::Error) -> FormatError {
    let message = error.to_string();
    match error.classify() {
        Category::Data => FormatError::Schema { document, entry, message },
        Category::Syntax | Category::Eof | Category::Io => FormatError::Json { document, message },
    }
}

/// Refuses a key that occurs twice.
pub(super) fn check_unique<V>(document: Document, pairs: &[(String, V)]) -> Result<(), FormatError> {
    let mut seen = HashSet::with_capacity(pairs.len());
    match pairs.iter().find(|(key, _)| !seen.insert(key.as_str())) {
        Some((key, _)) => Err(FormatError::DuplicateKey { document, key: key.clone() }),
        None => Ok(()),
    }
}

/// Refuses brackets nested deeper than [`MAX_DEPTH`], before any parser recurses.
fn check_depth(document: Document, text: &str) -> Result<(), FormatError> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (offset, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(FormatError::TooDeep { document, limit: MAX_DEPTH, offset });
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}
