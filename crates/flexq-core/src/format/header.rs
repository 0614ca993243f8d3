//! The safetensors header: 8 bytes of length, JSON, and where it puts each tensor.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::dtype::Dtype;
use super::error::{Document, FormatError};
use super::json;

/// The longest header that safetensors accepts, in bytes.
pub const MAX_HEADER: usize = 100_000_000;
/// The most dimensions accepted; frameworks stop at 64 or before.
pub const MAX_RANK: usize = 64;
/// Bytes of the length field in front of the header.
pub(super) const LENGTH_BYTES: usize = 8;
/// Our headers are padded with spaces so that the data begins at a multiple of this.
pub(super) const ALIGNMENT: usize = 64;
/// The key of the header that holds strings instead of a tensor.
pub(super) const METADATA: &str = "__metadata__";

/// A stored tensor: what the header says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) range: Range<usize>,
}

impl Entry {
    /// The name in the file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Dimensions; none for a scalar.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Where its bytes lie, from the start of the data (which follows the header).
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Its bytes.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        self.range.len()
    }
}

/// A header whose every claim has been checked against the length of the file.
#[derive(Debug)]
pub(super) struct Header {
    /// In the order of their data.
    pub entries: Vec<Entry>,
    pub metadata: BTreeMap<String, String>,
    /// Where the data begins.
    pub data_start: usize,
}

/// A tensor as the header describes it, not yet believed.
#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: RawShape,
    data_offsets: RawShape,
}

impl RawEntry {
    /// Start and end of the data.
    fn offsets(&self, tensor: &str) -> Result<[u64; 2], FormatError> {
        self.data_offsets.dims.as_slice().try_into().map_err(|_| FormatError::Schema {
            document: Document::Header,
            entry: tensor.into(),
            message: format!("data_offsets holds {} numbers, expected 2", self.data_offsets.rank),
        })
    }
}

/// Integers, of which at most [`MAX_RANK`] are kept: dimensions or offsets.
pub(super) struct RawShape {
    pub dims: Vec<u64>,
    pub rank: usize,
}

impl RawShape {
    /// The dimensions, believed to be few and small enough to count in memory.
    pub fn check(self, tensor: &str) -> Result<Vec<usize>, FormatError> {
        let Self { dims, rank } = self;
        if rank > MAX_RANK {
            return Err(FormatError::Rank { tensor: tensor.into(), limit: MAX_RANK, found: rank });
        }
        let shape = dims.iter().map(|&dim| dim.try_into().ok()).collect::<Option<_>>();
        shape.ok_or_else(|| FormatError::TooLarge { tensor: tensor.into(), shape: dims })
    }
}

impl<'de> Deserialize<'de> for RawShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Dims;
        impl<'de> Visitor<'de> for Dims {
            type Value = RawShape;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array of integers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawShape, A::Error> {
                let mut dims = Vec::new();
                while dims.len() < MAX_RANK {
                    match seq.next_element()? {
                        Some(dim) => dims.push(dim),
                        None => return Ok(RawShape { rank: dims.len(), dims }),
                    }
                }
                let mut rank = dims.len();
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    rank += 1;
                }
                Ok(RawShape { dims, rank })
            }
        }
        deserializer.deserialize_seq(Dims)
    }
}

/// A value of the header: its key decides which kind.
enum RawValue {
    Metadata(json::Pairs<String>),
    Tensor(RawEntry),
}

impl<'de> json::Value<'de> for RawValue {
    fn read<A: MapAccess<'de>>(key: &str, map: &mut A, current: &RefCell<String>) -> Result<Self, A::Error> {
        if key == METADATA {
            json::nested(map, current).map(Self::Metadata)
        } else {
            map.next_value().map(Self::Tensor)
        }
    }
}

/// Reads and checks the header of a file given whole.
pub(super) fn parse(file: &[u8]) -> Result<Header, FormatError> {
    let text = text(file)?;
    let data_start = LENGTH_BYTES + text.len();
    let values = json::parse_pairs::<RawValue>(Document::Header, text)?;
    json::check_unique(Document::Header, &values)?;

    let mut metadata = BTreeMap::new();
    let mut tensors = Vec::with_capacity(values.len());
    for (name, value) in values {
        match value {
            RawValue::Metadata(pairs) => {
                json::check_unique(Document::Header, &pairs)?;
                metadata = pairs.into_iter().collect();
            }
            RawValue::Tensor(raw) => tensors.push((raw.offsets(&name)?, name, raw)),
        }
    }
    let entries = place(tensors, file.len() - data_start)?;
    Ok(Header { entries, metadata, data_start })
}

/// The JSON text: length checked first, so that nothing is read on the word of the file.
fn text(file: &[u8]) -> Result<&str, FormatError> {
    let too_short = FormatError::TooShort { found: file.len() };
    let (length, rest) = file.split_first_chunk::<LENGTH_BYTES>().ok_or(too_short)?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER as u64 {
        return Err(FormatError::HeaderTooLarge { limit: MAX_HEADER, found: length });
    }
    let length = length as usize;
    let truncated = FormatError::HeaderTruncated { expected: LENGTH_BYTES + length, found: file.len() };
    let bytes = rest.get(..length).ok_or(truncated)?;
    std::str::from_utf8(bytes)
        .map_err(|error| FormatError::HeaderNotUtf8 { offset: LENGTH_BYTES + error.valid_up_to() })
}

/// Believes the tensors if they cover `0..data` exactly, one after the other.
fn place(mut tensors: Vec<([u64; 2], String, RawEntry)>, data: usize) -> Result<Vec<Entry>, FormatError> {
    tensors.sort_by_key(|(offsets, ..)| *offsets);
    let mut entries = Vec::with_capacity(tensors.len());
    let mut end = 0;
    for (offsets, name, raw) in tensors {
        let entry = check(name, &raw.dtype, raw.shape, offsets, end)?;
        end = entry.range.end;
        entries.push(entry);
    }
    match data {
        found if found < end => Err(FormatError::Truncated { expected: end, found }),
        found if found > end => Err(FormatError::Trailing { expected: end, found }),
        _ => Ok(entries),
    }
}

/// Checks one tensor whose data must begin at `previous`.
fn check(
    name: String,
    dtype: &str,
    shape: RawShape,
    [start, end]: [u64; 2],
    previous: usize,
) -> Result<Entry, FormatError> {
    let Ok(dtype) = dtype.parse::<Dtype>() else {
        return Err(FormatError::UnknownDtype { tensor: name, found: dtype.into() });
    };
    let shape = shape.check(&name)?;
    let bytes = nbytes(&name, dtype, &shape)?;
    if end < start {
        return Err(FormatError::Reversed { tensor: name, start, end });
    }
    if end - start != bytes as u64 {
        return Err(FormatError::Size { tensor: name, expected: bytes, found: end - start });
    }
    match start {
        found if found < previous as u64 => {
            Err(FormatError::Overlap { tensor: name, expected: previous, found })
        }
        found if found > previous as u64 => Err(FormatError::Gap { tensor: name, expected: previous, found }),
        _ => {
            let range = previous..end_of(&name, &shape, previous, bytes)?;
            Ok(Entry { name, dtype, shape, range })
        }
    }
}

/// Bytes of a tensor of `shape`.
pub(super) fn nbytes(tensor: &str, dtype: Dtype, shape: &[usize]) -> Result<usize, FormatError> {
    let bits = shape.iter().try_fold(dtype.bits(), |bits, &dim| bits.checked_mul(dim));
    match bits.ok_or_else(|| too_large(tensor, shape))? {
        bits if bits % 8 == 0 => Ok(bits / 8),
        bits => Err(FormatError::PartialByte { tensor: tensor.into(), dtype, bits }),
    }
}

/// Where a tensor of `bytes` that begins at `start` ends.
pub(super) fn end_of(
    tensor: &str,
    shape: &[usize],
    start: usize,
    bytes: usize,
) -> Result<usize, FormatError> {
    start.checked_add(bytes).ok_or_else(|| too_large(tensor, shape))
}

fn too_large(tensor: &str, shape: &[usize]) -> FormatError {
    FormatError::TooLarge { tensor: tensor.into(), shape: shape.iter().map(|&dim| dim as u64).collect() }
}

/// The length field and the header of a file of `entries`, padded to [`ALIGNMENT`].
pub(super) fn render(metadata: &BTreeMap<String, String>, entries: &[Entry]) -> Vec<u8> {
    use serde_json::{Map, Value, json};
    let mut object = Map::new();
    if !metadata.is_empty() {
        object.insert(METADATA.into(), json!(metadata));
    }
    for Entry { name, dtype, shape, range } in entries {
        let tensor = json!({
            "dtype": dtype.name(), "shape": shape, "data_offsets": [range.start, range.end],
        });
        object.insert(name.clone(), tensor);
    }
    let mut text = Value::Object(object).to_string().into_bytes();
    text.resize((LENGTH_BYTES + text.len()).next_multiple_of(ALIGNMENT) - LENGTH_BYTES, b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    header
}
