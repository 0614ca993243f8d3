//! What the writer writes, the reader, `verify` and the safetensors crate read.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;

use flexq_core::format::{Description, Dtype, File, Plan, Writer};
use flexq_core::verify::verify_file;
use flexq_core::{FloatType, Group, ScaleRule, ScaleType, Scheme, SharedBytes};
use proptest::prelude::*;
use safetensors::SafeTensors;

/// A tensor of a test file: quantized, or stored as it is.
#[derive(Clone, Debug)]
enum Tensor {
    Quantized(Description),
    Plain(Dtype, Vec<usize>),
}

/// Bytes that depend on position and seed, so that a misplaced block shows.
fn pattern(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at.wrapping_mul(31).wrapping_add(seed * 17) % 251) as u8).collect()
}

fn product(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Writes the tensors in blocks of an odd size, interleaving codes and scales.
fn write(path: &std::path::Path, tensors: &[(String, Tensor)]) -> Vec<(String, Vec<u8>)> {
    let mut plan = Plan::new();
    plan.set_metadata("format", "pt");
    let mut parts = Vec::new();
    for (name, tensor) in tensors {
        match tensor {
            Tensor::Plain(dtype, shape) => {
                let id = plan.add(name, *dtype, shape.clone()).unwrap();
                parts.push((id, name.clone(), product(shape) * dtype.bits() / 8));
            }
            Tensor::Quantized(description) => {
                let (codes, scales) = plan.add_quantized(name, description.clone()).unwrap();
                let rows = product(&description.shape[..description.shape.len() - 1]);
                let k = description.columns();
                parts.push((codes, format!("{name}_packed"), rows * (k * 6).div_ceil(8)));
                parts.push((scales, format!("{name}_scale"), rows * description.scheme.group.count(k) * 2));
            }
        }
    }
    let expected = plan.file_bytes().unwrap();
    let writer = Writer::create(path, plan).unwrap();
    let contents: Vec<Vec<u8>> =
        parts.iter().enumerate().map(|(seed, (_, _, bytes))| pattern(*bytes, seed)).collect();
    let longest = contents.iter().map(Vec::len).max().unwrap_or(0);
    for start in (0..longest).step_by(77) {
        for ((id, _, _), bytes) in parts.iter().zip(&contents) {
            if start < bytes.len() {
                writer.write(*id, &bytes[start..bytes.len().min(start + 77)]).unwrap();
            }
        }
    }
    writer.finish().unwrap();
    assert_eq!(fs::metadata(path).unwrap().len(), expected);
    parts.into_iter().zip(contents).map(|((_, name, _), bytes)| (name, bytes)).collect()
}

fn scheme() -> impl Strategy<Value = Scheme> {
    let group =
        prop_oneof![Just(Group::Row), prop::sample::select(vec![32, 64, 128, 256]).prop_map(Group::Columns)];
    let scale_type = prop_oneof![Just(ScaleType::F16), Just(ScaleType::BF16)];
    (group, prop::sample::select(ScaleRule::ALL.to_vec()), scale_type)
        .prop_map(|(group, rule, scale_type)| Scheme { group, rule, scale_type })
}

fn tensor() -> impl Strategy<Value = Tensor> {
    let origin = prop::sample::select(vec![FloatType::F32, FloatType::F16, FloatType::BF16]);
    let quantized = (prop::collection::vec(0usize..5, 1..3), 0usize..300, origin, scheme()).prop_map(
        |(mut shape, k, origin, scheme)| {
            shape.push(k);
            Tensor::Quantized(Description { shape, origin, scheme })
        },
    );
    let whole_bytes = Dtype::ALL.into_iter().filter(|dtype| dtype.bits() >= 8).collect::<Vec<_>>();
    let plain = (prop::sample::select(whole_bytes), prop::collection::vec(0usize..6, 0..4))
        .prop_map(|(dtype, shape)| Tensor::Plain(dtype, shape));
    prop_oneof![quantized, plain]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_written_file_reads_back(tensors in prop::collection::btree_map("[a-z\"\\\\é.]{1,8}", tensor(), 0..8)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.safetensors");
        let tensors: Vec<_> = tensors.into_iter().collect();
        let stored = write(&path, &tensors);

        let file = File::open(&path).unwrap();
        prop_assert_eq!(file.entries().len(), stored.len());
        prop_assert_eq!(file.header_bytes() % 64, 0);
        for (name, bytes) in &stored {
            prop_assert_eq!(&*file.bytes(name).unwrap(), bytes.as_slice());
            let entry = file.entry(name).unwrap();
            let start = file.header_bytes() + entry.range().start;
            prop_assert_eq!(start % (entry.dtype().bits() / 8), 0, "{} is not aligned", name);
        }
        let mut names: Vec<_> = tensors.iter().map(|(name, _)| name.as_str()).collect();
        let mut found = file.names();
        names.sort_unstable();
        found.sort_unstable();
        prop_assert_eq!(found, names);
        for (name, tensor) in &tensors {
            if let Tensor::Quantized(description) = tensor {
                let q = file.qtensor(name).unwrap();
                prop_assert_eq!(q.shape(), description.shape.as_slice());
                prop_assert_eq!(q.scheme(), description.scheme);
                prop_assert_eq!(q.origin(), description.origin);
                prop_assert_eq!(&**q.packed(), &*file.bytes(&format!("{name}_packed")).unwrap());
                prop_assert_eq!(&**q.scales(), &*file.bytes(&format!("{name}_scale")).unwrap());
            }
        }
        let report = verify_file(&path).unwrap();
        prop_assert_eq!(report.bytes, fs::metadata(&path).unwrap().len());

        let raw = fs::read(&path).unwrap();
        let theirs = SafeTensors::deserialize(&raw).unwrap();
        prop_assert_eq!(theirs.len(), stored.len());
        for (name, bytes) in &stored {
            prop_assert_eq!(theirs.tensor(name).unwrap().data(), bytes.as_slice());
        }
    }

    #[test]
    fn a_file_of_the_safetensors_crate_reads(
        tensors in prop::collection::btree_map("[a-z.]{1,8}", (0usize..5, 0usize..9), 0..6)
    ) {
        let data: Vec<_> =
            tensors.into_iter().map(|(name, (n, k))| (name, [n, k], pattern(n * k * 4, n))).collect();
        let views = data.iter().map(|(name, shape, bytes)| {
            let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes);
            (name, view.unwrap())
        });
        let raw = safetensors::serialize(views, None).unwrap();
        let file = File::from_bytes(SharedBytes::from(raw), "m.safetensors").unwrap();
        prop_assert!(file.manifest().is_none());
        for (name, shape, bytes) in &data {
            prop_assert_eq!(&*file.bytes(name).unwrap(), bytes.as_slice());
            let rows = file.float_rows(name).unwrap();
            prop_assert_eq!([rows.rows(), rows.columns()], *shape);
        }
    }
}

fn quantized(shape: &[usize]) -> Description {
    Description { shape: shape.to_vec(), origin: FloatType::BF16, scheme: Scheme::default() }
}

#[test]
fn large_tensors_are_aligned_to_64_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.safetensors");
    write(
        &path,
        &[
            ("odd".into(), Tensor::Plain(Dtype::U8, vec![3])),
            ("w".into(), Tensor::Quantized(quantized(&[256, 256]))),
            ("norm".into(), Tensor::Plain(Dtype::F32, vec![256])),
        ],
    );
    let file = File::open(&path).unwrap();
    for name in ["w_packed", "w_scale", "norm"] {
        assert_eq!((file.header_bytes() + file.entry(name).unwrap().range().start) % 64, 0, "{name}");
    }
    assert_eq!(file.names(), ["w", "norm", "odd"]);
}

#[test]
fn a_plan_knows_its_own_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.safetensors");
    write(&path, &[("w".into(), Tensor::Quantized(quantized(&[4, 64])))]);
    let file = File::open(&path).unwrap();
    let mut same = Plan::new();
    same.set_metadata("format", "pt");
    same.add_quantized("w", quantized(&[4, 64])).unwrap();
    assert!(same.describes(&file));
    let mut more = same.clone();
    more.add("b", Dtype::F32, vec![4]).unwrap();
    assert!(!more.describes(&file));
    let mut other = Plan::new();
    other.set_metadata("format", "pt");
    other.add_quantized("w", Description { origin: FloatType::F32, ..quantized(&[4, 64]) }).unwrap();
    assert!(!other.describes(&file));
}

#[test]
fn threads_write_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.safetensors");
    let mut plan = Plan::new();
    let ids: Vec<_> =
        (0..8).map(|at| plan.add(format!("t{at}"), Dtype::U8, vec![10_000 + at]).unwrap()).collect();
    let writer = Writer::create(&path, plan).unwrap();
    std::thread::scope(|scope| {
        for (at, &id) in ids.iter().enumerate() {
            let writer = &writer;
            scope.spawn(move || {
                for block in pattern(10_000 + at, at).chunks(997) {
                    writer.write(id, block).unwrap();
                }
            });
        }
    });
    writer.finish().unwrap();
    let file = File::open(&path).unwrap();
    for at in 0..8 {
        assert_eq!(&*file.bytes(&format!("t{at}")).unwrap(), pattern(10_000 + at, at).as_slice());
    }
    assert!(verify_file(&path).unwrap().is_intact());
}
