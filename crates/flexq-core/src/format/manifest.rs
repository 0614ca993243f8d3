//! The manifest: what the quantized tensors of a file are, and every checksum.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use xxhash_rust::xxh3::Xxh3;

use super::dtype::Dtype;
use super::error::{Document, FormatError};
use super::header::{Entry, LENGTH_BYTES, MAX_RANK, RawShape};
use super::json;
use crate::dtype::FloatType;
use crate::layout;
use crate::scheme::{BITS, Group, ScaleRule, ScaleType, Scheme};

/// The format version that this release writes, and the newest that it reads.
pub const VERSION: u64 = 1;
/// The key of the header's metadata that holds the manifest.
pub const KEY: &str = "flexq";

/// What one quantized tensor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Logical shape: `[N, K]`, or `[E, N, K]` for fused experts.
    pub shape: Vec<usize>,
    /// The type it was quantized from.
    pub origin: FloatType,
    /// Group, rule and type of the scales.
    pub scheme: Scheme,
}

impl Description {
    /// Columns `K`, the last dimension; 0 without dimensions.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(0)
    }

    /// Type and shape of the stored codes, then of the stored scales.
    pub(super) fn parts(&self, tensor: &str) -> Result<[(Dtype, Vec<usize>); 2], FormatError> {
        let rank = self.shape.len();
        if !(2..=MAX_RANK).contains(&rank) {
            return Err(FormatError::QuantizedRank { tensor: tensor.into(), limit: MAX_RANK, found: rank });
        }
        let k = self.shape[rank - 1];
        let with_columns = |columns| {
            let mut shape = self.shape.clone();
            shape[rank - 1] = columns;
            shape
        };
        let Scheme { group, scale_type, .. } = self.scheme;
        Ok([
            (Dtype::U8, with_columns(layout::packed_row_bytes(k))),
            (scale_type.into(), with_columns(group.count(k))),
        ])
    }
}

/// Name of the stored codes of a quantized tensor.
#[must_use]
pub fn packed_name(tensor: &str) -> String {
    format!("{tensor}_packed")
}

/// Name of the stored scales of a quantized tensor.
#[must_use]
pub fn scale_name(tensor: &str) -> String {
    format!("{tensor}_scale")
}

/// The manifest of a file, agreeing with its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub(super) tensors: BTreeMap<String, Description>,
    pub(super) checksums: BTreeMap<String, u64>,
    pub(super) header: u64,
}

impl Manifest {
    /// The quantized tensors by logical name.
    #[must_use]
    pub fn tensors(&self) -> &BTreeMap<String, Description> {
        &self.tensors
    }

    /// The xxh3-64 of every stored tensor, by stored name.
    #[must_use]
    pub fn checksums(&self) -> &BTreeMap<String, u64> {
        &self.checksums
    }

    /// The checksum of the header as it was written.
    #[must_use]
    pub fn header_checksum(&self) -> u64 {
        self.header
    }

    /// The checksum of `header` (with its length field): the xxh3-64 of its bytes in
    /// which the 16 digits of [`Manifest::header_checksum`] are zeros wherever they
    /// occur, since a checksum cannot cover itself.
    #[must_use]
    pub fn checksum_header(&self, header: &[u8]) -> u64 {
        let (length, text) = header.split_at(LENGTH_BYTES.min(header.len()));
        let text = String::from_utf8_lossy(text).replace(&digits(self.header), &digits(0));
        let mut hash = Xxh3::new();
        hash.update(length);
        hash.update(text.as_bytes());
        hash.digest()
    }

    /// Parses and checks everything that can be checked without the data.
    pub(super) fn parse(text: &str, entries: &HashMap<&str, &Entry>) -> Result<Self, FormatError> {
        check_version(text)?;
        let mut tensors = None;
        let mut checksums = None;
        let mut header = None;
        let sections = json::parse_pairs::<Section>(Document::Manifest, text)?;
        json::check_unique(Document::Manifest, &sections)?;
        for (_, section) in sections {
            match section {
                Section::Tensors(pairs) => tensors = Some(pairs),
                Section::Checksums(pairs) => checksums = Some(pairs),
                Section::Header(digits) => header = Some(digits),
                Section::Other => {}
            }
        }
        let missing = |field: &str| FormatError::Schema {
            document: Document::Manifest,
            entry: String::new(),
            message: format!("missing field `{field}`"),
        };
        let manifest = Self {
            tensors: parse_tensors(tensors.ok_or_else(|| missing("tensors"))?)?,
            checksums: parse_checksums(checksums.ok_or_else(|| missing("xxh3"))?)?,
            header: parse_checksum("header", &header.ok_or_else(|| missing("header"))?)?,
        };
        manifest.check(entries)?;
        Ok(manifest)
    }

    /// Checks that the file stores what the manifest says, and nothing beside.
    fn check(&self, entries: &HashMap<&str, &Entry>) -> Result<(), FormatError> {
        for (name, description) in &self.tensors {
            if entries.contains_key(name.as_str()) {
                return Err(FormatError::NameClash { name: name.clone() });
            }
            let names = [packed_name(name), scale_name(name)];
            for (stored, (dtype, shape)) in names.into_iter().zip(description.parts(name)?) {
                let Some(entry) = entries.get(stored.as_str()) else {
                    return Err(FormatError::MissingPart { tensor: name.clone(), stored });
                };
                if entry.dtype != dtype {
                    return Err(FormatError::PartDtype { stored, expected: dtype, found: entry.dtype });
                }
                if entry.shape != shape {
                    let found = entry.shape.clone();
                    return Err(FormatError::PartShape { stored, expected: shape, found });
                }
            }
        }
        if let Some(tensor) = self.checksums.keys().find(|name| !entries.contains_key(name.as_str())) {
            return Err(FormatError::StrayChecksum { tensor: tensor.clone() });
        }
        match entries.keys().filter(|name| !self.checksums.contains_key(**name)).min() {
            Some(&tensor) => Err(FormatError::MissingChecksum { tensor: tensor.into() }),
            None => Ok(()),
        }
    }

    /// The JSON text. Its length does not depend on the checksums.
    pub(super) fn render(&self) -> String {
        use serde_json::{Map, Value, json};
        let tensors: Map<String, Value> = self
            .tensors
            .iter()
            .map(|(name, Description { shape, origin, scheme })| {
                let group = match scheme.group {
                    Group::Columns(columns) => json!(columns),
                    Group::Row => json!("row"),
                };
                let description = json!({
                    "shape": shape, "dtype": origin.name(), "bits": BITS, "group": group,
                    "rule": scheme.rule.name(), "scale": scheme.scale_type.name(),
                });
                (name.clone(), description)
            })
            .collect();
        let checksums: Map<String, Value> =
            self.checksums.iter().map(|(name, &sum)| (name.clone(), digits(sum).into())).collect();
        json!({ "version": VERSION, "tensors": tensors, "xxh3": checksums, "header": digits(self.header) })
            .to_string()
    }
}

/// A checksum as text: 16 hexadecimal digits.
fn digits(checksum: u64) -> String {
    format!("{checksum:016x}")
}

/// Refuses a later version before anything else of the manifest is looked at.
fn check_version(text: &str) -> Result<(), FormatError> {
    enum Field {
        Version(u64),
        Other,
    }
    impl<'de> json::Value<'de> for Field {
        fn read<A: MapAccess<'de>>(key: &str, map: &mut A, _: &RefCell<String>) -> Result<Self, A::Error> {
            match key {
                "version" => map.next_value().map(Self::Version),
                _ => map.next_value::<IgnoredAny>().map(|_| Self::Other),
            }
        }
    }
    let fields = json::parse_pairs::<Field>(Document::Manifest, text)?;
    let version = fields.iter().find_map(|(_, field)| match field {
        Field::Version(version) => Some(*version),
        Field::Other => None,
    });
    match version {
        Some(VERSION) => Ok(()),
        Some(found) => Err(FormatError::Version { supported: VERSION, found }),
        None => Err(FormatError::Schema {
            document: Document::Manifest,
            entry: String::new(),
            message: "missing field `version`".into(),
        }),
    }
}

/// One field of the manifest; unknown ones are for later releases of version 1.
enum Section {
    Tensors(json::Pairs<RawDescription>),
    Checksums(json::Pairs<String>),
    Header(String),
    Other,
}

impl<'de> json::Value<'de> for Section {
    fn read<A: MapAccess<'de>>(key: &str, map: &mut A, current: &RefCell<String>) -> Result<Self, A::Error> {
        match key {
            "tensors" => json::nested(map, current).map(Self::Tensors),
            "xxh3" => json::nested(map, current).map(Self::Checksums),
            "header" => map.next_value().map(Self::Header),
            _ => map.next_value::<IgnoredAny>().map(|_| Self::Other),
        }
    }
}

/// A description as written, not yet believed.
#[derive(Deserialize)]
struct RawDescription {
    shape: RawShape,
    dtype: String,
    bits: u64,
    group: RawGroup,
    rule: String,
    scale: String,
}

/// A number of columns, or a word.
enum RawGroup {
    Columns(u64),
    Word(String),
}

impl<'de> Deserialize<'de> for RawGroup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct GroupVisitor;
        impl Visitor<'_> for GroupVisitor {
            type Value = RawGroup;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of columns or \"row\"")
            }

            fn visit_u64<E: de::Error>(self, columns: u64) -> Result<RawGroup, E> {
                Ok(RawGroup::Columns(columns))
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<RawGroup, E> {
                Ok(RawGroup::Word(word.into()))
            }
        }
        deserializer.deserialize_any(GroupVisitor)
    }
}

fn parse_tensors(pairs: json::Pairs<RawDescription>) -> Result<BTreeMap<String, Description>, FormatError> {
    json::check_unique(Document::Manifest, &pairs)?;
    pairs
        .into_iter()
        .map(|(name, raw)| {
            let description = parse_description(&name, raw)?;
            Ok((name, description))
        })
        .collect()
}

fn parse_description(tensor: &str, raw: RawDescription) -> Result<Description, FormatError> {
    let unknown =
        |what, found: String, expected| FormatError::Unknown { tensor: tensor.into(), what, found, expected };
    if raw.bits != BITS as u64 {
        return Err(FormatError::Bits { tensor: tensor.into(), found: raw.bits });
    }
    let origin = match raw.dtype.as_str() {
        "F32" => FloatType::F32,
        "F16" => FloatType::F16,
        "BF16" => FloatType::BF16,
        _ => return Err(unknown("type of origin", raw.dtype, "F32, F16, BF16")),
    };
    let Ok(scale_type) = raw.scale.parse::<ScaleType>() else {
        return Err(unknown("type of scales", raw.scale, "F16, BF16, PAIR"));
    };
    let Ok(rule) = raw.rule.parse::<ScaleRule>() else {
        return Err(unknown("scale rule", raw.rule, "absmax31, absmax32s, mse"));
    };
    let (group, found) = match raw.group {
        RawGroup::Columns(n) => (usize::try_from(n).ok().and_then(|n| Group::columns(n).ok()), n.to_string()),
        RawGroup::Word(word) => ((word == "row").then_some(Group::Row), word),
    };
    let group = group.ok_or_else(|| unknown("group", found, "32, 64, 128, 256, \"row\""))?;
    let scheme = Scheme { group, rule, scale_type };
    if scheme.check().is_err() {
        return Err(unknown("group of paired scales", group.to_string(), "32, 64, 128"));
    }
    Ok(Description { shape: raw.shape.check(tensor)?, origin, scheme })
}

fn parse_checksums(pairs: json::Pairs<String>) -> Result<BTreeMap<String, u64>, FormatError> {
    json::check_unique(Document::Manifest, &pairs)?;
    pairs
        .into_iter()
        .map(|(tensor, digits)| {
            let checksum = parse_checksum(&tensor, &digits)?;
            Ok((tensor, checksum))
        })
        .collect()
}

fn parse_checksum(tensor: &str, text: &str) -> Result<u64, FormatError> {
    let valid = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    valid
        .then(|| u64::from_str_radix(text, 16).ok())
        .flatten()
        .ok_or_else(|| FormatError::ChecksumSyntax { tensor: tensor.into(), found: text.into() })
}
