//! `verify` finds any flipped bit.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use flexq_core::format::{Description, Dtype, File, FormatError, Plan, Writer};
use flexq_core::verify::{Report, verify};
use flexq_core::{FloatType, Result, Scheme, SharedBytes};

/// A file with two quantized tensors (one with pad bits) and two plain ones.
fn packed_file() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.safetensors");
    let describe = |shape: &[usize]| Description {
        shape: shape.to_vec(),
        origin: FloatType::BF16,
        scheme: Scheme::default(),
    };
    let mut plan = Plan::new();
    plan.set_metadata("format", "pt");
    let (a, a_scale) = plan.add_quantized("a.weight", describe(&[16, 256])).unwrap();
    let (b, b_scale) = plan.add_quantized("b", describe(&[2, 3, 130])).unwrap();
    let norm = plan.add("norm", Dtype::F32, vec![10]).unwrap();
    let odd = plan.add("odd", Dtype::U8, vec![3]).unwrap();
    let writer = Writer::create(&path, plan).unwrap();
    writer.write(a, &[0x5a; 16 * 192]).unwrap();
    writer.write(a_scale, &[0x11; 16 * 2 * 2]).unwrap();
    let mut row = [0xa5; 98];
    row[97] = 0x05; // 130 codes use the lower 4 bits of the last byte
    writer.write(b, &row.repeat(6)).unwrap();
    writer.write(b_scale, &[0x22; 6 * 2 * 2]).unwrap();
    writer.write(norm, &[7; 40]).unwrap();
    writer.write(odd, &[1, 2, 3]).unwrap();
    writer.finish().unwrap();
    std::fs::read(path).unwrap()
}

fn check(bytes: Vec<u8>) -> Result<Report> {
    verify(&File::from_bytes(SharedBytes::from(bytes), "m.safetensors")?, &|_| ())
}

/// A generator of test positions (splitmix64).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn the_file_itself_is_intact() {
    let bytes = packed_file();
    let report = check(bytes.clone()).unwrap();
    let expected = Report { entries: 6, quantized: 2, bytes: bytes.len() as u64, faults: vec![] };
    assert_eq!(report, expected);
}

#[test]
fn ten_thousand_flips_in_the_data_are_found() {
    let bytes = packed_file();
    let start = File::from_bytes(SharedBytes::from(bytes.clone()), "m").unwrap().header_bytes();
    let mut state = 1;
    for _ in 0..10_000 {
        let at = start + random(&mut state) as usize % (bytes.len() - start);
        let bit = random(&mut state) % 8;
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << bit;
        let report = check(flipped).unwrap();
        let checksum = |fault: &FormatError| matches!(fault, FormatError::Checksum { .. });
        assert!(report.faults.iter().any(checksum), "byte {at}, bit {bit}: {:?}", report.faults);
    }
}

#[test]
fn every_flip_in_the_header_is_found() {
    let bytes = packed_file();
    let end = File::from_bytes(SharedBytes::from(bytes.clone()), "m").unwrap().header_bytes();
    for at in 0..end {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            if let Ok(report) = check(flipped) {
                assert!(!report.is_intact(), "byte {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn wrong_data_with_right_checksums_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.safetensors");
    let mut plan = Plan::new();
    let description = Description { shape: vec![3, 130], origin: FloatType::F32, scheme: Scheme::default() };
    let (codes, scales) = plan.add_quantized("w", description).unwrap();
    let writer = Writer::create(&path, plan).unwrap();
    let mut rows = vec![0; 3 * 98];
    rows[98 + 97] = 0x10; // the first pad bit of row 1
    writer.write(codes, &rows).unwrap();
    let infinity = 0x7c00u16.to_le_bytes();
    writer.write(scales, &[[0; 2], [0; 2], [0; 2], [0; 2], [0; 2], infinity].concat()).unwrap();
    writer.finish().unwrap();
    let mut faults = flexq_core::verify::verify_file(&path).unwrap().faults;
    faults.sort_by_key(ToString::to_string);
    assert_eq!(
        faults,
        [
            FormatError::PadBits { tensor: "w_packed".into(), row: 1 },
            FormatError::ScaleNotFinite { tensor: "w_scale".into(), row: 2, group: 1, found: "inf".into() },
        ]
    );
}
