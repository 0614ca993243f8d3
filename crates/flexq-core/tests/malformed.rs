//! Files that are wrong, each in its own way: each has its own error, found
//! quickly and without large allocations.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use flexq_core::format::{Document, Dtype, File, FormatError};
use flexq_core::{Error, SharedBytes};

/// A file of a header text and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// The parser's message without line and column: where it stops is its own affair.
fn without_position(mut fault: FormatError) -> FormatError {
    if let FormatError::Json { message, .. } | FormatError::Schema { message, .. } = &mut fault {
        message.truncate(message.find(" at line ").unwrap_or(message.len()));
    }
    fault
}

/// The fault of a file.
fn fault(bytes: Vec<u8>) -> FormatError {
    match File::from_bytes(SharedBytes::from(bytes), "m.safetensors") {
        Err(Error::Format { path, fault }) => {
            assert_eq!(path.to_str(), Some("m.safetensors"));
            without_position(*fault)
        }
        Err(other) => panic!("not a format error: {other}"),
        Ok(_) => panic!("the file was accepted"),
    }
}

/// A header of one `F32` tensor `a` of 16 bytes, with one part replaced.
fn one(from: &str, to: &str) -> String {
    let header = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
    assert!(header.contains(from), "{from}");
    header.replace(from, to)
}

/// A header of two tensors of 4 bytes each at these offsets.
fn two(a: [u64; 2], b: [u64; 2]) -> String {
    format!(
        r#"{{"a":{{"dtype":"F32","shape":[1],"data_offsets":{a:?}}},"b":{{"dtype":"F32","shape":[1],"data_offsets":{b:?}}}}}"#
    )
}

fn json(message: &str) -> FormatError {
    FormatError::Json { document: Document::Header, message: message.into() }
}

fn schema(entry: &str, message: &str) -> FormatError {
    FormatError::Schema { document: Document::Header, entry: entry.into(), message: message.into() }
}

const A: &str = "a";

#[test]
fn length_field() {
    let cases: [(&str, Vec<u8>, FormatError); 6] = [
        ("empty file", vec![], FormatError::TooShort { found: 0 }),
        ("seven bytes", vec![0; 7], FormatError::TooShort { found: 7 }),
        (
            "header bomb: 2^64-1 bytes",
            vec![0xff; 16],
            FormatError::HeaderTooLarge { limit: 100_000_000, found: u64::MAX },
        ),
        (
            "one byte beyond the limit",
            100_000_001u64.to_le_bytes().to_vec(),
            FormatError::HeaderTooLarge { limit: 100_000_000, found: 100_000_001 },
        ),
        (
            "the limit itself, but no such file",
            100_000_000u64.to_le_bytes().to_vec(),
            FormatError::HeaderTruncated { expected: 100_000_008, found: 8 },
        ),
        (
            "header cut short",
            file("{}", 0)[..9].to_vec(),
            FormatError::HeaderTruncated { expected: 10, found: 9 },
        ),
    ];
    for (case, bytes, expected) in cases {
        assert_eq!(fault(bytes), expected, "{case}");
    }
}

#[test]
fn header_text() {
    let nested = |depth: usize| format!("{{\"a\":{}", "[".repeat(depth));
    let cases: [(&str, String, FormatError); 15] = [
        ("no header", String::new(), json("EOF while parsing a value")),
        ("unclosed", "{".into(), json("EOF while parsing an object")),
        ("junk after", "{}x".into(), json("trailing characters")),
        ("NUL padding", "{}\0".into(), json("trailing characters")),
        ("single quotes", "{'a':1}".into(), json("key must be a string")),
        ("trailing comma", one("}}", "},}"), json("trailing comma")),
        ("lone surrogate", one("\"a\"", r#""\ud800""#), json("unexpected end of hex escape")),
        (
            "control character",
            one("\"a\"", "\"\n\""),
            json("control character (\\u0000-\\u001F) found while parsing a string"),
        ),
        ("an array", "[]".into(), schema("", "invalid type: sequence, expected an object")),
        ("a number", "1".into(), schema("", "invalid type: integer `1`, expected an object")),
        (
            "a tensor that is null",
            r#"{"a":null}"#.into(),
            schema(A, "invalid type: null, expected struct RawEntry"),
        ),
        (
            "deep arrays",
            nested(50_000_000),
            FormatError::TooDeep { document: Document::Header, limit: 16, offset: 20 },
        ),
        (
            "deep objects",
            "{\"a\":".repeat(10_000),
            FormatError::TooDeep { document: Document::Header, limit: 16, offset: 80 },
        ),
        (
            "a tensor twice",
            two([0, 4], [4, 8]).replace("\"b\"", "\"a\""),
            FormatError::DuplicateKey { document: Document::Header, key: A.into() },
        ),
        (
            "a tensor twice, once escaped",
            two([0, 4], [4, 8]).replace("\"b\"", r#""\u0061""#),
            FormatError::DuplicateKey { document: Document::Header, key: A.into() },
        ),
    ];
    for (case, header, expected) in cases {
        assert_eq!(fault(file(&header, 16)), expected, "{case}");
    }
    let mut bytes = file(&one("\"a\"", "\"?\""), 16);
    bytes[10] = 0xc3;
    assert_eq!(fault(bytes), FormatError::HeaderNotUtf8 { offset: 10 });
}

#[test]
fn metadata() {
    let cases: [(&str, &str, FormatError); 4] = [
        (
            "metadata that is a list",
            r#"{"__metadata__":[]}"#,
            schema("__metadata__", "invalid type: sequence, expected an object"),
        ),
        (
            "metadata with a number",
            r#"{"__metadata__":{"format":1}}"#,
            schema("format", "invalid type: integer `1`, expected a string"),
        ),
        (
            "metadata key twice",
            r#"{"__metadata__":{"x":"","x":""}}"#,
            FormatError::DuplicateKey { document: Document::Header, key: "x".into() },
        ),
        (
            "metadata twice",
            r#"{"__metadata__":{},"__metadata__":{}}"#,
            FormatError::DuplicateKey { document: Document::Header, key: "__metadata__".into() },
        ),
    ];
    for (case, header, expected) in cases {
        assert_eq!(fault(file(header, 0)), expected, "{case}");
    }
}

#[test]
fn fields_of_a_tensor() {
    let ones = |n: usize| format!("[{}]", vec!["1"; n].join(","));
    let cases: [(&str, String, FormatError); 18] = [
        ("no dtype", one("\"dtype\":\"F32\",", ""), schema(A, "missing field `dtype`")),
        ("no shape", one("\"shape\":[2,2],", ""), schema(A, "missing field `shape`")),
        ("no offsets", one(",\"data_offsets\":[0,16]", ""), schema(A, "missing field `data_offsets`")),
        (
            "dtype twice",
            one("\"dtype\":\"F32\",", "\"dtype\":\"F32\",\"dtype\":\"F32\","),
            schema(A, "duplicate field `dtype`"),
        ),
        (
            "negative dimension",
            one("[2,2]", "[-2,-2]"),
            schema(A, "invalid value: integer `-2`, expected u64"),
        ),
        (
            "fractional dimension",
            one("[2,2]", "[2.0,2]"),
            schema(A, "invalid type: floating point `2.0`, expected u64"),
        ),
        (
            "dimension beyond 64 bits",
            one("[2,2]", "[18446744073709551616]"),
            schema(A, "invalid type: floating point `1.8446744073709552e+19`, expected u64"),
        ),
        ("one offset", one("[0,16]", "[0]"), schema(A, "data_offsets holds 1 numbers, expected 2")),
        ("three offsets", one("[0,16]", "[0,16,16]"), schema(A, "data_offsets holds 3 numbers, expected 2")),
        (
            "text for offsets",
            one("[0,16]", "\"0\""),
            schema(A, "invalid type: string \"0\", expected an array of integers"),
        ),
        (
            "unknown type",
            one("F32", "F33"),
            FormatError::UnknownDtype { tensor: A.into(), found: "F33".into() },
        ),
        (
            "type in lower case",
            one("F32", "f32"),
            FormatError::UnknownDtype { tensor: A.into(), found: "f32".into() },
        ),
        (
            "65 dimensions",
            one("[2,2]", &ones(65)),
            FormatError::Rank { tensor: A.into(), limit: 64, found: 65 },
        ),
        (
            "a million dimensions",
            one("[2,2]", &ones(1_000_000)),
            FormatError::Rank { tensor: A.into(), limit: 64, found: 1_000_000 },
        ),
        (
            "product beyond 64 bits",
            one("[2,2]", "[4294967296,4294967296]"),
            FormatError::TooLarge { tensor: A.into(), shape: vec![1 << 32, 1 << 32] },
        ),
        (
            "product that wraps to the right size",
            one("[2,2]", "[4611686018427387908]"),
            FormatError::TooLarge { tensor: A.into(), shape: vec![(1 << 62) + 4] },
        ),
        (
            "huge but for a zero",
            one("[2,2]", "[4294967296,4294967296,0]"),
            FormatError::TooLarge { tensor: A.into(), shape: vec![1 << 32, 1 << 32, 0] },
        ),
        (
            "half a byte",
            one("\"F32\",\"shape\":[2,2]", "\"F4\",\"shape\":[3]"),
            FormatError::PartialByte { tensor: A.into(), dtype: Dtype::F4, bits: 12 },
        ),
    ];
    for (case, header, expected) in cases {
        assert_eq!(fault(file(&header, 16)), expected, "{case}");
    }
}

#[test]
fn places_of_tensors() {
    let b = || "b".to_owned();
    let cases: [(&str, String, usize, FormatError); 11] = [
        (
            "end before start",
            one("[0,16]", "[16,0]"),
            16,
            FormatError::Reversed { tensor: A.into(), start: 16, end: 0 },
        ),
        (
            "fewer bytes than the shape",
            one("[0,16]", "[0,12]"),
            12,
            FormatError::Size { tensor: A.into(), expected: 16, found: 12 },
        ),
        (
            "more bytes than the shape",
            one("[0,16]", "[0,18446744073709551615]"),
            16,
            FormatError::Size { tensor: A.into(), expected: 16, found: u64::MAX },
        ),
        (
            "offsets at the end of the number line",
            one("[0,16]", "[18446744073709551599,18446744073709551615]"),
            16,
            FormatError::Gap { tensor: A.into(), expected: 0, found: u64::MAX - 16 },
        ),
        (
            "first tensor late",
            one("[0,16]", "[4,20]"),
            20,
            FormatError::Gap { tensor: A.into(), expected: 0, found: 4 },
        ),
        (
            "hole between two",
            two([0, 4], [8, 12]),
            12,
            FormatError::Gap { tensor: b(), expected: 4, found: 8 },
        ),
        ("overlap", two([0, 4], [2, 6]), 6, FormatError::Overlap { tensor: b(), expected: 4, found: 2 }),
        (
            "same place twice",
            two([0, 4], [0, 4]),
            4,
            FormatError::Overlap { tensor: b(), expected: 4, found: 0 },
        ),
        ("data cut short", one(A, A), 15, FormatError::Truncated { expected: 16, found: 15 }),
        ("no data at all", one(A, A), 0, FormatError::Truncated { expected: 16, found: 0 }),
        ("a byte after the data", one(A, A), 17, FormatError::Trailing { expected: 16, found: 17 }),
    ];
    for (case, header, data, expected) in cases {
        assert_eq!(fault(file(&header, data)), expected, "{case}");
    }
}

#[test]
fn data_without_tensors() {
    assert_eq!(fault(file("{}", 1)), FormatError::Trailing { expected: 0, found: 1 });
}

#[test]
fn odd_but_valid_files_open() {
    let cases = [
        ("nothing in it", "{}".to_owned(), 0),
        ("white space around", "  {}\n\t ".to_owned(), 0),
        ("a scalar", one("[2,2]", "[]").replace("16]", "4]"), 4),
        ("an empty tensor", one("[2,2]", "[0,4]").replace("16]", "0]"), 0),
        ("a field of a later release", one("{\"dtype\"", "{\"stride\":[[1]],\"dtype\""), 16),
        ("file order against header order", two([4, 8], [0, 4]), 8),
        ("6-bit floats", one("\"F32\",\"shape\":[2,2]", "\"F6_E2M3\",\"shape\":[4]").replace("16]", "3]"), 3),
    ];
    for (case, header, data) in cases {
        let opened = File::from_bytes(SharedBytes::from(file(&header, data)), "m");
        assert!(opened.is_ok(), "{case}: {opened:?}");
    }
}
