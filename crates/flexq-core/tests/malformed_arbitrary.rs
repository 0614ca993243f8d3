//! Arbitrary and almost valid files never panic, and what opens can be read.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use flexq_core::SharedBytes;
use flexq_core::format::File;
use flexq_core::verify::verify;
use proptest::prelude::*;

/// Opens a file and, if that succeeds, reads all of it.
fn read_everything(bytes: Vec<u8>) {
    let length = bytes.len();
    let Ok(file) = File::from_bytes(SharedBytes::from(bytes), "m.safetensors") else { return };
    let stored: usize = file.entries().iter().map(|entry| file.bytes(entry.name()).unwrap().len()).sum();
    assert_eq!(file.header_bytes() + stored, length);
    for name in file.names() {
        let quantized = file.manifest().is_some_and(|manifest| manifest.tensors().contains_key(name));
        assert_eq!(file.qtensor(name).is_ok(), quantized);
        if !quantized {
            let float = file.entry(name).unwrap().dtype().float().is_some();
            assert_eq!(file.float_rows(name).is_ok(), float);
        }
    }
    assert_eq!(verify(&file, &|_| ()).is_ok(), file.manifest().is_some());
}

fn file(header: &[u8], data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// Numbers at the edges of what sizes and offsets can be.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..5,
        0u64..5,
        Just(64),
        Just(1 << 32),
        Just((1 << 32) - 1),
        Just(1 << 62),
        Just(u64::MAX),
        any::<u64>()
    ]
}

fn tensor() -> impl Strategy<Value = String> {
    let dtype = prop::sample::select(vec!["U8", "F16", "BF16", "F32", "F4", "F6_E3M2", "BOOL", "X"]);
    (dtype, prop::collection::vec(number(), 0..4), number(), number()).prop_map(
        |(dtype, shape, start, end)| {
            format!(r#"{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#)
        },
    )
}

fn description() -> impl Strategy<Value = String> {
    let group = prop::sample::select(vec!["0", "32", "128", "\"row\"", "-1", "[]", "null"]);
    (prop::collection::vec(number(), 0..4), 5u8..8, group).prop_map(|(shape, bits, group)| {
        format!(
            r#"{{"shape":{shape:?},"dtype":"F32","bits":{bits},"group":{group},"rule":"mse","scale":"F16"}}"#
        )
    })
}

/// Headers that are JSON of the right kind but need not agree with anything.
fn header() -> impl Strategy<Value = String> {
    let names = prop::sample::select(vec!["a", "a_packed", "a_scale", "b", "__metadata__"]);
    let manifest = prop::collection::vec(description(), 0..2).prop_map(|tensors| {
        let tensors: Vec<_> = tensors.iter().map(|tensor| format!("\"a\":{tensor}")).collect();
        let tensors = tensors.join(",");
        format!(
            r#"{{"version":1,"tensors":{{{tensors}}},"xxh3":{{"a_packed":"0000000000000000","a_scale":"0000000000000000"}},"header":"0000000000000000"}}"#
        )
    });
    (prop::collection::vec((names, tensor()), 0..4), prop::option::of(manifest)).prop_map(
        |(tensors, manifest)| {
            let tensors = tensors.iter().map(|(name, tensor)| format!("\"{name}\":{tensor}"));
            let manifest = manifest.map(|text| format!("\"__metadata__\":{{\"flexq\":{text:?}}}"));
            format!("{{{}}}", manifest.into_iter().chain(tensors).collect::<Vec<_>>().join(","))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_everything(bytes);
    }

    #[test]
    fn arbitrary_text(text in "[\\[\\]{}\":,0-9a-f \\\\]{0,60}") {
        read_everything(file(text.as_bytes(), 0));
    }

    #[test]
    fn almost_valid_headers(header in header(), data in 0usize..40) {
        read_everything(file(header.as_bytes(), data));
    }

    #[test]
    fn valid_files_with_a_few_bytes_changed(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let manifest = r#"{"version":1,"tensors":{"a":{"shape":[2,5],"dtype":"F32","bits":6,"group":"row","rule":"mse","scale":"F16"}},"xxh3":{"a_packed":"0000000000000000","a_scale":"0000000000000000"},"header":"0000000000000000"}"#;
        let header = format!(
            r#"{{"__metadata__":{{"flexq":{manifest:?}}},"a_packed":{{"dtype":"U8","shape":[2,4],"data_offsets":[0,8]}},"a_scale":{{"dtype":"F16","shape":[2,1],"data_offsets":[8,12]}}}}"#
        );
        let mut bytes = file(header.as_bytes(), 12);
        prop_assert!(File::from_bytes(SharedBytes::from(bytes.clone()), "m").is_ok());
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_everything(bytes);
    }
}
