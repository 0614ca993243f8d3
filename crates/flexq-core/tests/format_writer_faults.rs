//! What the writer does when it cannot finish.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::io;
use std::path::Path;

use flexq_core::Error;
use flexq_core::format::{Description, Dtype, FormatError, Plan, Writer};
use flexq_core::{FloatType, Scheme};

fn files(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

fn plan() -> (Plan, flexq_core::format::EntryId) {
    let mut plan = Plan::new();
    let id = plan.add("a", Dtype::U8, vec![8]).unwrap();
    (plan, id)
}

#[test]
fn an_unfinished_file_never_appears() {
    let directory = tempfile::tempdir().unwrap();
    let (plan, id) = plan();
    let writer = Writer::create(directory.path().join("m.safetensors"), plan).unwrap();
    writer.write(id, &[0; 4]).unwrap();
    let during = files(directory.path());
    assert_eq!(during.len(), 1);
    assert!(during[0].starts_with(".m.safetensors.flexq-tmp-"), "{during:?}");
    drop(writer);
    assert!(files(directory.path()).is_empty());
}

#[test]
fn an_incomplete_tensor_is_an_error_and_leaves_the_old_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.safetensors");
    fs::write(&path, "old").unwrap();
    let (plan, id) = plan();
    let writer = Writer::create(&path, plan).unwrap();
    writer.write(id, &[0; 7]).unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(error.to_string(), "bytes of tensor \"a\": expected 8, found 7");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(files(directory.path()), ["m.safetensors"]);
}

#[test]
fn too_many_bytes_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (plan, id) = plan();
    let writer = Writer::create(directory.path().join("m.safetensors"), plan).unwrap();
    writer.write(id, &[0; 6]).unwrap();
    let error = writer.write(id, &[0; 3]).unwrap_err();
    assert_eq!(error.to_string(), "bytes of tensor \"a\": expected 8, found 9");
}

#[test]
fn a_missing_directory_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let error = Writer::create(directory.path().join("no/m.safetensors"), Plan::new()).unwrap_err();
    let Error::Io { action: "create", source, .. } = error else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_finished_file_replaces_the_old_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.safetensors");
    fs::write(&path, "old").unwrap();
    let (plan, id) = plan();
    let writer = Writer::create(&path, plan).unwrap();
    writer.write(id, &[1; 8]).unwrap();
    writer.finish().unwrap();
    assert!(flexq_core::verify::verify_file(&path).unwrap().is_intact());
    assert_eq!(files(directory.path()), ["m.safetensors"]);
}

#[test]
fn a_directory_is_no_file_to_open() {
    let directory = tempfile::tempdir().unwrap();
    let error = flexq_core::format::File::open(directory.path()).unwrap_err();
    let Error::Io { action: "open", source, .. } = error else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_plan_refuses_what_no_file_can_hold() {
    let quantized = |shape: &[usize]| Description {
        shape: shape.to_vec(),
        origin: FloatType::F32,
        scheme: Scheme::default(),
    };
    let clash = |name: &str| Err(FormatError::NameClash { name: name.into() });
    let mut plan = Plan::new();
    plan.add("a", Dtype::F32, vec![1]).unwrap();
    plan.add_quantized("w", quantized(&[2, 2])).unwrap();
    assert_eq!(plan.add("a", Dtype::F32, vec![1]), clash("a"));
    assert_eq!(plan.add("w", Dtype::F32, vec![1]), clash("w"));
    assert_eq!(plan.add("w_scale", Dtype::F32, vec![1]), clash("w_scale"));
    assert_eq!(plan.add("__metadata__", Dtype::F32, vec![1]), clash("__metadata__"));
    assert_eq!(
        plan.add_quantized("a", quantized(&[2, 2])).map(|_| ()),
        Err(FormatError::NameClash { name: "a".into() })
    );
    assert_eq!(
        plan.add_quantized("v", quantized(&[2])),
        Err(FormatError::QuantizedRank { tensor: "v".into(), limit: 64, found: 1 })
    );
    plan.add("u_scale", Dtype::F32, vec![1]).unwrap();
    assert_eq!(
        plan.add_quantized("u", quantized(&[2, 2])).map(|_| ()),
        Err(FormatError::NameClash { name: "u_scale".into() })
    );
    plan.add("u_packed", Dtype::U8, vec![1]).expect("the failed call added nothing");
    assert_eq!(
        plan.add("huge", Dtype::F32, vec![usize::MAX, 2]),
        Err(FormatError::TooLarge { tensor: "huge".into(), shape: vec![u64::MAX, 2] })
    );
    let half = usize::MAX / 2 + 1;
    plan.add("half", Dtype::U8, vec![half / 8]).unwrap();
    for part in 0..16 {
        plan.add(format!("part{part}"), Dtype::U8, vec![half / 8]).unwrap();
    }
    assert!(matches!(plan.file_bytes(), Err(FormatError::TooLarge { .. })));
}

/// The temporary file goes, and the error says why.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_a_clean_error() {
    // A file system of 64 KiB needs privileges that a test may lack: then there is
    // nothing to test.
    let directory = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(directory.path())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no privilege to mount a small file system");
        return;
    }
    let mut plan = Plan::new();
    let id = plan.add("a", Dtype::U8, vec![1 << 20]).unwrap();
    let writer = Writer::create(directory.path().join("m.safetensors"), plan).unwrap();
    let error = writer.write(id, &vec![0; 1 << 20]);
    drop(writer);
    let left = files(directory.path());
    std::process::Command::new("umount").arg(directory.path()).status().unwrap();
    let Err(Error::Io { action: "write", source, .. }) = error else { panic!("{error:?}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert!(left.is_empty(), "{left:?}");
}
