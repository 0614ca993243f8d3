//! Products with activations of 16, 8 and 6 bits.

use flexq_core::{
    ActivationBits, ActivationGroup, Cpu, FloatRows, FloatRowsMut, FloatType, Group, MatmulOptions, QTensor,
    Scheme, Threads,
};
use proptest::prelude::*;

use crate::data::{FLOAT_TYPES, decode, dequantize, encode, noise, others, scalar, tensor};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn products_with_quantized_activations(
        q in tensor(),
        m in rows(),
        dtype in prop::sample::select(FLOAT_TYPES.to_vec()),
        bits in prop::sample::select(vec![ActivationBits::A8, ActivationBits::A6]),
        group in prop::sample::select(vec![ActivationGroup::Columns, ActivationGroup::Row]),
        seed in any::<u64>(),
    ) {
        let x = activations(dtype, m, q.columns(), seed);
        let options = MatmulOptions { bits, group, threads: Threads::ONE };
        let expected = matmul(scalar(), &x, m, &q, options, dtype);
        for cpu in others() {
            prop_assert!(matmul(cpu, &x, m, &q, options, dtype) == expected, "{} M={m}", cpu.isa());
        }
    }

    #[test]
    fn products_with_float_activations(
        q in tensor(),
        m in rows(),
        x_dtype in prop::sample::select(FLOAT_TYPES.to_vec()),
        seed in any::<u64>(),
    ) {
        assert_near_exact(&q, m, x_dtype, &activations(x_dtype, m, q.columns(), seed), 0.0);
    }

    /// Small numbers beside large ones are rounded to 2^-29 of the largest of 128, not to single precision.
    #[test]
    fn products_with_float_activations_of_all_magnitudes(
        q in tensor(),
        m in rows(),
        x_dtype in prop::sample::select(FLOAT_TYPES.to_vec()),
        seed in any::<u64>(),
    ) {
        let numbers = decode(FloatType::F32, &activations(FloatType::F32, m, q.columns(), seed));
        let x: Vec<f32> = numbers
            .iter()
            .enumerate()
            .map(|(i, x)| x * 2.0f32.powi((noise(!seed, i) % 40) as i32 - 26))
            .collect();
        assert_near_exact(&q, m, x_dtype, &encode(x_dtype, &x), 2.0f64.powi(-30));
    }
}

/// A16 of every set of kernels against sums in double precision. Activations may be off by that share of
/// the largest of 128.
fn assert_near_exact(q: &QTensor, m: usize, x_dtype: FloatType, bytes: &[u8], share: f64) {
    let (dtype, k) = (FloatType::F32, q.columns());
    let x = decode(x_dtype, bytes);
    let rows = FloatRows::new(bytes, x_dtype, m, k).expect("sizes fit");
    let mut w = vec![0; q.rows() * k * 4];
    dequantize(scalar(), q, dtype, &mut w);
    let w = decode(dtype, &w);
    let options =
        MatmulOptions { bits: ActivationBits::A16, threads: Threads::ONE, ..MatmulOptions::default() };
    for cpu in others().chain([scalar()]) {
        let y = decode(dtype, &product(cpu, &rows, q, options, dtype));
        for (i, y) in y.into_iter().enumerate() {
            let (mut exact, mut size, mut off) = (0.0, 0.0, 0.0);
            let (x, w) = (&x[i / q.rows() * k..][..k], &w[i % q.rows() * k..][..k]);
            for (x, w) in x.chunks(128).zip(w.chunks(128)) {
                let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                for (&x, &w) in x.iter().zip(w) {
                    let term = f64::from(x) * f64::from(w);
                    exact += term;
                    size += term.abs();
                    off += share * f64::from(largest) * f64::from(w.abs());
                }
            }
            // a sum of K terms in any order is off by at most K roundings of all magnitudes
            let bound = (k + 8) as f64 * f64::from(f32::EPSILON) * size + off;
            assert!((f64::from(y) - exact).abs() <= bound, "{} M={m} {y} {exact}", cpu.isa());
        }
    }
}

/// Rows of activations: mostly few, some around the sizes of blocks.
fn rows() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0usize..10, 2 => 10usize..40, 1 => 60usize..90]
}

/// `[m, k]`, with a group of zeros now and then.
fn activations(dtype: FloatType, m: usize, k: usize, seed: u64) -> Vec<u8> {
    let x: Vec<f32> = (0..m * k)
        .map(|i| {
            if noise(seed, i / 128).is_multiple_of(8) {
                0.0
            } else {
                noise(seed, i) as f32 / 2.0f32.powi(31) - 1.0
            }
        })
        .collect();
    encode(dtype, &x)
}

fn matmul(cpu: Cpu, x: &[u8], m: usize, q: &QTensor, options: MatmulOptions, dtype: FloatType) -> Vec<u8> {
    product(cpu, &FloatRows::new(x, dtype, m, q.columns()).expect("sizes fit"), q, options, dtype)
}

/// As [`matmul`], with a type of its own for the output.
fn product(cpu: Cpu, x: &FloatRows<'_>, q: &QTensor, options: MatmulOptions, dtype: FloatType) -> Vec<u8> {
    let mut bytes = vec![0xff; x.rows() * q.rows() * dtype.size()];
    let mut out = FloatRowsMut::new(&mut bytes, dtype, x.rows(), q.rows()).expect("sizes fit");
    cpu.matmul(x, q, &options, &mut out).expect("sizes fit");
    bytes
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let (n, k) = (700, 1536);
    let w: Vec<f32> = (0..n * k).map(|i| noise(1, i) as f32 / 2.0f32.powi(31) - 1.0).collect();
    let w = encode(FloatType::BF16, &w);
    let src = FloatRows::new(&w, FloatType::BF16, n, k).expect("sizes fit");
    for cpu in others().chain([scalar()]) {
        let quantize = |threads| cpu.quantize(&src, &[n, k], &Scheme::default(), threads).expect("finite");
        let (one, many) = (quantize(Threads::ONE), quantize(Threads::new(7)));
        assert!(one.packed()[..] == many.packed()[..] && one.scales()[..] == many.scales()[..]);
        for bits in [ActivationBits::A16, ActivationBits::A8, ActivationBits::A6] {
            for m in [1, 4, 5, 16, 33, 150] {
                let x = activations(FloatType::F32, m, k, 9);
                let product = |threads| {
                    let options = MatmulOptions { bits, threads, ..MatmulOptions::default() };
                    matmul(cpu, &x, m, &one, options, FloatType::F32)
                };
                assert!(product(Threads::ONE) == product(Threads::new(5)), "{} {bits:?}", cpu.isa());
            }
        }
    }
}

/// More activations and columns than kernels keep in caches at a time.
#[test]
fn products_of_many_rows_and_columns() {
    let (n, k) = (40, 2828);
    let w: Vec<f32> = (0..n * k).map(|i| noise(2, i) as f32 / 2.0f32.powi(31) - 1.0).collect();
    let w = encode(FloatType::BF16, &w);
    let src = FloatRows::new(&w, FloatType::BF16, n, k).expect("sizes fit");
    for group in [Group::Columns(128), Group::Columns(32), Group::Row] {
        let scheme = Scheme { group, ..Scheme::default() };
        let q = scalar().quantize(&src, &[n, k], &scheme, Threads::ONE).expect("finite");
        for m in [130, 300] {
            let x = activations(FloatType::F16, m, k, 3);
            let options = MatmulOptions::default();
            let expected = matmul(scalar(), &x, m, &q, options, FloatType::F16);
            for cpu in others() {
                let found = matmul(cpu, &x, m, &q, options, FloatType::F16);
                assert!(found == expected, "{} {group:?} M={m}", cpu.isa());
            }
            let x = FloatRows::new(&x, FloatType::F16, m, k).expect("sizes fit");
            let options = MatmulOptions { bits: ActivationBits::A16, ..options };
            let floats = |cpu| decode(FloatType::F32, &product(cpu, &x, &q, options, FloatType::F32));
            let expected = floats(scalar());
            for cpu in others() {
                for (found, expected) in floats(cpu).into_iter().zip(&expected) {
                    assert!((found - expected).abs() < 1e-3, "{} {group:?} M={m}", cpu.isa());
                }
            }
        }
    }
}

#[test]
fn products_with_the_largest_activations_and_with_zeros() {
    let (n, k) = (20, 300);
    let w: Vec<f32> = (0..n * k).map(|i| noise(4, i) as f32 / 2.0f32.powi(31) - 1.0).collect();
    let w = encode(FloatType::F32, &w);
    let src = FloatRows::new(&w, FloatType::F32, n, k).expect("sizes fit");
    let q = scalar().quantize(&src, &[n, k], &Scheme::default(), Threads::ONE).expect("finite");
    // 2^112 is where sums may begin to overflow; a number just below rounds to it as bf16
    let largest = [(FloatType::F32, 2.0f32.powi(112).next_down()), (FloatType::BF16, 2.0f32.powi(111))];
    for (dtype, largest) in largest.into_iter().chain([(FloatType::F16, 65504.0)]) {
        for m in [1, 3, 5, 9, 20, 70] {
            // a group of zeros between others, every third row without any other number
            let number = |row, column| match (row % 3, column) {
                (1, _) | (_, 128..256) => 0.0,
                _ if noise(5, row * k + column).is_multiple_of(2) => largest,
                _ => -largest,
            };
            let x: Vec<f32> = (0..m * k).map(|i| number(i / k, i % k)).collect();
            assert_near_exact(&q, m, dtype, &encode(dtype, &x), 0.0);
        }
    }
}

#[test]
fn a_row_with_nan_or_infinity_harms_no_other() {
    let (n, k) = (20, 256);
    let q = QTensor::from_parts(
        vec![n, k],
        FloatType::F32,
        Scheme::default(),
        vec![0x5a; n * k / 4 * 3].into(),
        [0x00, 0x3c].repeat(n * 2).into(),
    )
    .expect("sizes fit");
    for cpu in others().chain([scalar()]) {
        for bits in [ActivationBits::A16, ActivationBits::A8] {
            for (m, bad) in [2, 6, 12, 70].into_iter().flat_map(|m| [(m, f32::NAN), (m, f32::INFINITY)]) {
                let mut x = vec![1.0f32; m * k];
                x[k + 130] = bad;
                let options = MatmulOptions { bits, ..MatmulOptions::default() };
                let y = matmul(cpu, &encode(FloatType::F32, &x), m, &q, options, FloatType::F32);
                for (i, y) in decode(FloatType::F32, &y).into_iter().enumerate() {
                    let harmed = if bad.is_nan() { y.is_nan() } else { !y.is_finite() };
                    assert_eq!(harmed, i / n == 1, "{} {bits:?} {m} rows, row {}", cpu.isa(), i / n);
                }
            }
        }
    }
}
