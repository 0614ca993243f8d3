//! What is compared, and with what: sets of kernels, weights and numbers.

use flexq_core::{Cpu, FloatRowsMut, FloatType, Group, Isa, QTensor, ScaleRule, ScaleType, Scheme, Threads};
use half::{bf16, f16};
use proptest::prelude::*;

pub const GROUPS: [Group; 5] =
    [Group::Columns(32), Group::Columns(64), Group::Columns(128), Group::Columns(256), Group::Row];
pub const FLOAT_TYPES: [FloatType; 3] = [FloatType::F32, FloatType::F16, FloatType::BF16];
pub const COLUMNS: [usize; 18] =
    [0, 1, 3, 5, 31, 32, 37, 64, 100, 127, 128, 129, 130, 172, 256, 300, 515, 1024];

pub fn scalar() -> Cpu {
    Cpu::with_isa(Isa::Scalar).expect("always available")
}

/// The others; empty on a processor without any.
pub fn others() -> impl Iterator<Item = Cpu> {
    Isa::ALL.into_iter().filter(|&isa| isa != Isa::Scalar).filter_map(Cpu::with_isa)
}

pub fn encode(dtype: FloatType, values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|&x| match dtype {
            FloatType::F32 => x.to_le_bytes().to_vec(),
            FloatType::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
            FloatType::BF16 => bf16::from_f32(x).to_le_bytes().to_vec(),
        })
        .collect()
}

pub fn decode(dtype: FloatType, bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(dtype.size())
        .map(|b| match dtype {
            FloatType::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            FloatType::F16 => f16::from_le_bytes([b[0], b[1]]).to_f32(),
            FloatType::BF16 => bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        })
        .collect()
}

pub fn schemes() -> impl Strategy<Value = Scheme> {
    let rule = prop::sample::select(ScaleRule::ALL.to_vec());
    let scale_type = prop::sample::select(ScaleType::ALL.to_vec());
    (prop::sample::select(GROUPS.to_vec()), rule, scale_type)
        .prop_map(|(group, rule, scale_type)| Scheme { group, rule, scale_type })
        .prop_filter("a group that the scale type goes with", |scheme| scheme.check().is_ok())
}

/// A number that looks random.
pub fn noise(seed: u64, i: usize) -> u64 {
    let x = (seed ^ (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ (x >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 32
}

/// A tensor of random codes and scales, of an awkward shape.
pub fn tensor() -> impl Strategy<Value = QTensor> {
    (1usize..36, prop::sample::select(COLUMNS.to_vec()), schemes(), any::<u64>()).prop_map(
        |(rows, columns, scheme, seed)| {
            let codes: Vec<i8> = (0..rows * columns).map(|i| (noise(seed, i) % 64) as i8 - 32).collect();
            let mut packed = vec![0; rows * flexq_core::layout::packed_row_bytes(columns)];
            scalar().pack_codes(&codes, rows, columns, &mut packed).expect("sizes fit");
            let scales: Vec<u8> = (0..rows * scheme.group.count(columns))
                .flat_map(|i| match scheme.scale_type {
                    ScaleType::Pair => ((noise(!seed, i) & 0xffff) as u16).to_le_bytes(),
                    scale_type => {
                        let scale = (noise(!seed, i) % 2000) as f32 * 1e-5 - 0.01;
                        scale_type.to_bits(scale).to_le_bytes()
                    }
                })
                .collect();
            QTensor::from_parts(vec![rows, columns], FloatType::F32, scheme, packed.into(), scales.into())
                .expect("sizes fit")
        },
    )
}

pub fn dequantize(cpu: Cpu, q: &QTensor, dtype: FloatType, out: &mut [u8]) {
    let mut out = FloatRowsMut::new(out, dtype, q.rows(), q.columns()).expect("sizes fit");
    cpu.dequantize_rows(q, 0..q.rows(), &mut out, Threads::ONE).expect("sizes fit");
}
