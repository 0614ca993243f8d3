//! Valid safetensors files whose flexq manifest is wrong, each in its own way.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use flexq_core::format::{Document, Dtype, File, FormatError};
use flexq_core::{Error, SharedBytes};

/// `w` quantized, [2, 40] in groups of 32, and a plain `b`.
const MANIFEST: &str = r#"{"version":1,"tensors":{"w":{"shape":[2,40],"dtype":"BF16","bits":6,"group":32,"rule":"absmax32s","scale":"F16"}},"xxh3":{"w_packed":"0123456789abcdef","w_scale":"0123456789abcdef","b":"0123456789abcdef"},"header":"0123456789abcdef"}"#;
const W_PACKED: &str = r#""w_packed":{"dtype":"U8","shape":[2,30],"data_offsets":[0,60]},"#;
const W_SCALE: &str = r#""w_scale":{"dtype":"F16","shape":[2,2],"data_offsets":[60,68]},"#;
const B: &str = r#""b":{"dtype":"F32","shape":[1],"data_offsets":[68,72]}"#;

/// A file with this manifest and these tensors.
fn file(manifest: &str, tensors: &str) -> Vec<u8> {
    let header = format!("{{\"__metadata__\":{{\"flexq\":{manifest:?}}},{tensors}}}");
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + 72, 0);
    bytes
}

fn open(manifest: &str, tensors: &str) -> Result<File, Error> {
    File::from_bytes(SharedBytes::from(file(manifest, tensors)), "m.safetensors")
}

/// The parser's message without line and column: where it stops is its own affair.
fn without_position(mut fault: FormatError) -> FormatError {
    if let FormatError::Json { message, .. } | FormatError::Schema { message, .. } = &mut fault {
        message.truncate(message.find(" at line ").unwrap_or(message.len()));
    }
    fault
}

fn fault(manifest: &str, tensors: &str) -> FormatError {
    match open(manifest, tensors) {
        Err(Error::Format { fault, .. }) => without_position(*fault),
        Err(other) => panic!("not a format error: {other}"),
        Ok(_) => panic!("the file was accepted"),
    }
}

fn tensors() -> String {
    [W_PACKED, W_SCALE, B].concat()
}

/// The manifest with one part replaced.
fn with(from: &str, to: &str) -> String {
    assert!(MANIFEST.contains(from), "{from}");
    MANIFEST.replacen(from, to, 1)
}

fn schema(entry: &str, message: &str) -> FormatError {
    FormatError::Schema { document: Document::Manifest, entry: entry.into(), message: message.into() }
}

fn unknown(what: &'static str, found: &str, expected: &'static str) -> FormatError {
    FormatError::Unknown { tensor: "w".into(), what, found: found.into(), expected }
}

#[test]
fn the_file_without_faults_opens() {
    let file = open(MANIFEST, &tensors()).unwrap();
    assert_eq!(file.names(), ["w", "b"]);
    assert_eq!(file.qtensor("w").unwrap().shape(), [2, 40]);
}

#[test]
fn a_later_release_of_version_1_may_add_fields() {
    let manifest = with("\"version\":1", "\"version\":1,\"new\":{\"a\":[1]}");
    let manifest = manifest.replacen("\"bits\":6", "\"bits\":6,\"note\":\"?\"", 1);
    assert!(open(&manifest, &tensors()).is_ok());
}

#[test]
fn text() {
    let deep = format!("{{\"version\":1,\"x\":{}", "[".repeat(100_000));
    let cases: [(&str, String, FormatError); 14] = [
        (
            "no JSON",
            "flexq".into(),
            FormatError::Json { document: Document::Manifest, message: "expected ident".into() },
        ),
        (
            "empty",
            String::new(),
            FormatError::Json { document: Document::Manifest, message: "EOF while parsing a value".into() },
        ),
        ("deep", deep, FormatError::TooDeep { document: Document::Manifest, limit: 16, offset: 32 }),
        ("a list", "[]".into(), schema("", "invalid type: sequence, expected an object")),
        ("nothing said", "{}".into(), schema("", "missing field `version`")),
        (
            "version 2",
            with("\"version\":1", "\"version\":2"),
            FormatError::Version { supported: 1, found: 2 },
        ),
        (
            "version 0",
            with("\"version\":1", "\"version\":0"),
            FormatError::Version { supported: 1, found: 0 },
        ),
        (
            "a version 2 that changed everything",
            r#"{"tensors":[],"version":2}"#.into(),
            FormatError::Version { supported: 1, found: 2 },
        ),
        (
            "version as text",
            with("\"version\":1", "\"version\":\"1\""),
            schema("version", "invalid type: string \"1\", expected u64"),
        ),
        ("no tensors", with("\"tensors\"", "\"tensor\""), schema("", "missing field `tensors`")),
        ("no checksums", with("\"xxh3\"", "\"xxh4\""), schema("", "missing field `xxh3`")),
        ("no header checksum", with("\"header\"", "\"head\""), schema("", "missing field `header`")),
        (
            "a tensor twice",
            with(
                "\"tensors\":{",
                "\"tensors\":{\"w\":{\"shape\":[2,40],\"dtype\":\"BF16\",\"bits\":6,\"group\":32,\"rule\":\"mse\",\"scale\":\"F16\"},",
            ),
            FormatError::DuplicateKey { document: Document::Manifest, key: "w".into() },
        ),
        (
            "a checksum twice",
            with("\"w_scale\"", "\"w_packed\""),
            FormatError::DuplicateKey { document: Document::Manifest, key: "w_packed".into() },
        ),
    ];
    for (case, manifest, expected) in cases {
        assert_eq!(fault(&manifest, &tensors()), expected, "{case}");
    }
}

#[test]
fn descriptions() {
    let groups = "32, 64, 128, 256, \"row\"";
    let cases: [(&str, String, FormatError); 15] = [
        ("4 bits", with("\"bits\":6", "\"bits\":4"), FormatError::Bits { tensor: "w".into(), found: 4 }),
        ("group 0", with("\"group\":32", "\"group\":0"), unknown("group", "0", groups)),
        ("group 48", with("\"group\":32", "\"group\":48"), unknown("group", "48", groups)),
        (
            "group by another word",
            with("\"group\":32", "\"group\":\"channel\""),
            unknown("group", "channel", groups),
        ),
        (
            "negative group",
            with("\"group\":32", "\"group\":-1"),
            schema("w", "invalid type: integer `-1`, expected a number of columns or \"row\""),
        ),
        (
            "unknown rule",
            with("absmax32s", "absmax33"),
            unknown("scale rule", "absmax33", "absmax31, absmax32s, mse"),
        ),
        ("origin no float", with("BF16", "I8"), unknown("type of origin", "I8", "F32, F16, BF16")),
        (
            "scales of 32 bits",
            with("\"scale\":\"F16\"", "\"scale\":\"F32\""),
            unknown("type of scales", "F32", "F16, BF16, PAIR"),
        ),
        ("no rule", with("\"rule\":\"absmax32s\",", ""), schema("w", "missing field `rule`")),
        (
            "a vector",
            with("[2,40]", "[40]"),
            FormatError::QuantizedRank { tensor: "w".into(), limit: 64, found: 1 },
        ),
        (
            "a scalar",
            with("[2,40]", "[]"),
            FormatError::QuantizedRank { tensor: "w".into(), limit: 64, found: 0 },
        ),
        (
            "65 dimensions",
            with("[2,40]", &format!("{:?}", [1; 65])),
            FormatError::Rank { tensor: "w".into(), limit: 64, found: 65 },
        ),
        (
            "checksum too short",
            with("\"w_packed\":\"0123456789abcdef\"", "\"w_packed\":\"0123456789abcde\""),
            FormatError::ChecksumSyntax { tensor: "w_packed".into(), found: "0123456789abcde".into() },
        ),
        (
            "checksum in capitals",
            with("\"b\":\"0123456789abcdef\"", "\"b\":\"0123456789ABCDEF\""),
            FormatError::ChecksumSyntax { tensor: "b".into(), found: "0123456789ABCDEF".into() },
        ),
        (
            "signed header checksum",
            with("\"header\":\"0", "\"header\":\"+"),
            FormatError::ChecksumSyntax { tensor: "header".into(), found: "+123456789abcdef".into() },
        ),
    ];
    for (case, manifest, expected) in cases {
        assert_eq!(fault(&manifest, &tensors()), expected, "{case}");
    }
}

#[test]
fn manifest_and_tensors_disagree() {
    let shape = |stored: &str, expected: [usize; 2], found: [usize; 2]| FormatError::PartShape {
        stored: stored.into(),
        expected: expected.to_vec(),
        found: found.to_vec(),
    };
    let missing = |stored: &str| FormatError::MissingPart { tensor: "w".into(), stored: stored.into() };
    let cases: [(&str, String, String, FormatError); 14] = [
        ("codes missing", MANIFEST.into(), tensors().replace("w_packed", "w_codes"), missing("w_packed")),
        ("scales missing", MANIFEST.into(), tensors().replace("w_scale", "w_scales"), missing("w_scale")),
        (
            "codes of another type",
            MANIFEST.into(),
            tensors().replace("U8", "I8"),
            FormatError::PartDtype { stored: "w_packed".into(), expected: Dtype::U8, found: Dtype::I8 },
        ),
        (
            "scales of another type",
            MANIFEST.into(),
            tensors().replace("F16", "BF16"),
            FormatError::PartDtype { stored: "w_scale".into(), expected: Dtype::F16, found: Dtype::BF16 },
        ),
        ("too few rows", with("[2,40]", "[3,40]"), tensors(), shape("w_packed", [3, 30], [2, 30])),
        ("too many columns", with("[2,40]", "[2,44]"), tensors(), shape("w_packed", [2, 33], [2, 30])),
        (
            "too few scales",
            MANIFEST.into(),
            tensors().replace("[2,2]", "[4,1]"),
            shape("w_scale", [2, 2], [4, 1]),
        ),
        (
            "scales for other groups",
            with("\"group\":32", "\"group\":64"),
            tensors(),
            shape("w_scale", [2, 1], [2, 2]),
        ),
        (
            "more dimensions than stored",
            with("[2,40]", "[1,2,40]"),
            tensors(),
            FormatError::PartShape {
                stored: "w_packed".into(),
                expected: vec![1, 2, 30],
                found: vec![2, 30],
            },
        ),
        (
            "huge columns",
            with("[2,40]", "[2,18446744073709551615]"),
            tensors(),
            shape("w_packed", [2, usize::MAX / 4 * 3 + 3], [2, 30]),
        ),
        (
            "a plain tensor of the quantized name",
            MANIFEST.into(),
            tensors().replace("\"b\"", "\"w\""),
            FormatError::NameClash { name: "w".into() },
        ),
        (
            "a tensor without checksum",
            with(",\"b\":\"0123456789abcdef\"", ""),
            tensors(),
            FormatError::MissingChecksum { tensor: "b".into() },
        ),
        (
            "a checksum without tensor",
            with("\"b\":", "\"c\":\"0123456789abcdef\",\"b\":"),
            tensors(),
            FormatError::StrayChecksum { tensor: "c".into() },
        ),
        (
            "codes that no description claims",
            with("\"w\":{", "\"v\":{"),
            tensors(),
            FormatError::MissingPart { tensor: "v".into(), stored: "v_packed".into() },
        ),
    ];
    for (case, manifest, tensors, expected) in cases {
        assert_eq!(fault(&manifest, &tensors), expected, "{case}");
    }
}
