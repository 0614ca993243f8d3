//! Every set of kernels this processor has against the scalar one: byte for byte where
//! the numerics are exact.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use flexq_core::{
    ActivationBits, ActivationGroup, Cpu, FloatRows, FloatRowsMut, FloatType, Group, Isa, MatmulOptions,
    QTensor, ScaleRule, ScaleType, Scheme, Threads,
};
use half::{bf16, f16};
use proptest::prelude::*;

const GROUPS: [Group; 5] =
    [Group::Columns(32), Group::Columns(64), Group::Columns(128), Group::Columns(256), Group::Row];
const FLOAT_TYPES: [FloatType; 3] = [FloatType::F32, FloatType::F16, FloatType::BF16];
const COLUMNS: [usize; 18] = [0, 1, 3, 5, 31, 32, 37, 64, 100, 127, 128, 129, 130, 172, 256, 300, 515, 1024];

fn scalar() -> Cpu {
    Cpu::with_isa(Isa::Scalar).expect("always available")
}

/// The others; empty on a processor without any.
fn others() -> impl Iterator<Item = Cpu> {
    Isa::ALL.into_iter().filter(|&isa| isa != Isa::Scalar).filter_map(Cpu::with_isa)
}

fn encode(dtype: FloatType, values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|&x| match dtype {
            FloatType::F32 => x.to_le_bytes().to_vec(),
            FloatType::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
            FloatType::BF16 => bf16::from_f32(x).to_le_bytes().to_vec(),
        })
        .collect()
}

fn decode(dtype: FloatType, bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(dtype.size())
        .map(|b| match dtype {
            FloatType::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            FloatType::F16 => f16::from_le_bytes([b[0], b[1]]).to_f32(),
            FloatType::BF16 => bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        })
        .collect()
}

/// Codes and scales, or the error's text.
fn quantize(cpu: Cpu, src: &FloatRows<'_>, scheme: &Scheme) -> Result<(Vec<u8>, Vec<u8>), String> {
    cpu.quantize(src, &[src.rows(), src.columns()], scheme, Threads::ONE)
        .map(|q| (q.packed().to_vec(), q.scales().to_vec()))
        .map_err(|error| error.to_string())
}

fn assert_same_quantization(dtype: FloatType, bytes: &[u8], columns: usize, scheme: &Scheme) {
    let rows = bytes.len().checked_div(columns * dtype.size()).unwrap_or(0);
    let src = FloatRows::new(bytes, dtype, rows, columns).expect("sizes fit");
    let expected = quantize(scalar(), &src, scheme);
    for cpu in others() {
        assert!(
            quantize(cpu, &src, scheme) == expected,
            "{} differs for {dtype} {columns} columns, {scheme:?}",
            cpu.isa()
        );
    }
}

fn schemes() -> impl Strategy<Value = Scheme> {
    let rule = prop::sample::select(ScaleRule::ALL.to_vec());
    let scale_type = prop::sample::select(ScaleType::ALL.to_vec());
    (prop::sample::select(GROUPS.to_vec()), rule, scale_type)
        .prop_map(|(group, rule, scale_type)| Scheme { group, rule, scale_type })
        .prop_filter("a group that the scale type goes with", |scheme| scheme.check().is_ok())
}

/// Weights as they come: mostly ordinary, some zero, tiny, huge or repeated.
fn weight() -> impl Strategy<Value = f32> {
    prop_oneof![
        12 => -0.1f32..0.1,
        2 => prop::sample::select(vec![0.0f32, -0.0, 1.0, -1.0, 0.5, -0.5, 0.015_625, 31.5, -32.5]),
        1 => (-64i16..64).prop_map(|n| f32::from(n) / 64.0),
    ]
}

/// Any finite number.
fn any_finite() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |x| x.is_finite())
}

fn matrix(element: impl Strategy<Value = f32> + 'static) -> impl Strategy<Value = (usize, Vec<f32>)> {
    let element = element.boxed();
    (1usize..4, prop::sample::select(COLUMNS.to_vec())).prop_flat_map(move |(rows, columns)| {
        (Just(columns), prop::collection::vec(element.clone(), rows * columns))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn quantization_of_ordinary_weights(
        (columns, w) in matrix(weight()),
        dtype in prop::sample::select(FLOAT_TYPES.to_vec()),
        scheme in schemes(),
    ) {
        assert_same_quantization(dtype, &encode(dtype, &w), columns, &scheme);
    }

    #[test]
    fn quantization_of_any_numbers_and_its_errors(
        (columns, w) in matrix(any_finite()),
        dtype in prop::sample::select(FLOAT_TYPES.to_vec()),
        scheme in schemes(),
    ) {
        // in 16 bits some of these become infinite
        assert_same_quantization(dtype, &encode(dtype, &w), columns, &scheme);
    }

    #[test]
    fn quantization_of_tiny_numbers(
        (columns, w) in matrix((-40i32..40, -150i32..-100).prop_map(|(m, e)| m as f32 * (e as f32).exp2())),
        dtype in prop::sample::select(FLOAT_TYPES.to_vec()),
        scheme in schemes(),
    ) {
        assert_same_quantization(dtype, &encode(dtype, &w), columns, &scheme);
    }

    #[test]
    fn packing_is_inverted_by_unpacking(
        columns in prop::sample::select(COLUMNS.to_vec()),
        seed in any::<u64>(),
    ) {
        let codes: Vec<i8> = (0..3 * columns).map(|i| (noise(seed, i) % 64) as i8 - 32).collect();
        let mut packed = vec![0; 3 * flexq_core::layout::packed_row_bytes(columns)];
        for cpu in others().chain([scalar()]) {
            packed.fill(0xff);
            cpu.pack_codes(&codes, 3, columns, &mut packed).expect("sizes fit");
            let scales = vec![0; Group::Row.count(columns) * 6];
            let scheme = Scheme { group: Group::Row, ..Scheme::default() };
            let q = QTensor::from_parts(
                vec![3, columns], FloatType::F32, scheme, packed.clone().into(), scales.into(),
            ).expect("sizes fit");
            let mut unpacked = vec![0; codes.len()];
            cpu.unpack_codes(&q, &mut unpacked, Threads::ONE).expect("sizes fit");
            prop_assert!(unpacked == codes, "{}", cpu.isa());
        }
    }

    #[test]
    fn dequantization(
        q in tensor(),
        dtype in prop::sample::select(FLOAT_TYPES.to_vec()),
    ) {
        let mut expected = vec![0; q.rows() * q.columns() * dtype.size()];
        dequantize(scalar(), &q, dtype, &mut expected);
        for cpu in others() {
            let mut found = vec![0; expected.len()];
            dequantize(cpu, &q, dtype, &mut found);
            prop_assert!(found == expected, "{} {dtype}", cpu.isa());
        }
    }

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

/// A number that looks random.
fn noise(seed: u64, i: usize) -> u64 {
    let x = (seed ^ (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ (x >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 32
}

/// A tensor of random codes and scales, of an awkward shape.
fn tensor() -> impl Strategy<Value = QTensor> {
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

fn dequantize(cpu: Cpu, q: &QTensor, dtype: FloatType, out: &mut [u8]) {
    let mut out = FloatRowsMut::new(out, dtype, q.rows(), q.columns()).expect("sizes fit");
    cpu.dequantize_rows(q, 0..q.rows(), &mut out, Threads::ONE).expect("sizes fit");
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

/// All finite 16-bit floats in an order that mixes magnitudes, beside a largest element
/// that sets the scale, so that every quotient is met.
#[test]
fn quantization_of_every_16_bit_float() {
    for dtype in [FloatType::F16, FloatType::BF16] {
        let all: Vec<f32> = (0..=u16::MAX)
            .map(|bits| decode(dtype, &bits.to_le_bytes())[0])
            .filter(|x| x.is_finite() && x.abs() < 60000.0)
            .collect();
        for largest in [1.0f32, 1.007_812_5, 1.25, 1.335_937_5, 1.984_375, 0.011_7, 3.1e-5, 3000.0] {
            for sign in [1.0, -1.0] {
                let mut w: Vec<f32> = all.iter().copied().filter(|x| x.abs() <= largest).collect();
                w.truncate(w.len() / 127 * 127);
                let w: Vec<f32> =
                    w.chunks(127).flat_map(|part| part.iter().copied().chain([sign * largest])).collect();
                for rule in [ScaleRule::AbsMax31, ScaleRule::AbsMax32s] {
                    let scheme = Scheme { rule, ..Scheme::default() };
                    assert_same_quantization(dtype, &encode(dtype, &w), w.len(), &scheme);
                }
            }
        }
    }
}

/// Every quotient of two half-precision significands, from a quarter to 32: the
/// reciprocals that stand for divisions must round all of them alike.
#[test]
fn quantization_of_every_quotient_of_significands() {
    let scheme = Scheme { group: Group::Row, ..Scheme::default() };
    // exponents of elements below that of the largest one, which sets the scale
    let others: Vec<u16> = (0x2000..0x3c00).collect();
    for significand in 0..0x400 {
        let largest = 0x3800 | significand;
        let w: Vec<u8> =
            others.iter().filter(|&&w| w < largest).chain([&largest]).flat_map(|w| w.to_le_bytes()).collect();
        assert_same_quantization(FloatType::F16, &w, w.len() / 2, &scheme);
    }
}

/// Quotients one rounding away from a tie, where a reciprocal would decide wrongly.
#[test]
fn quantization_next_to_ties() {
    for bits in (0x0400..0x7800).step_by(37) {
        let scale = f16::from_bits(bits).to_f32();
        let mut w = vec![-32.0 * scale];
        for n in -32..31 {
            let tie = (n as f32 + 0.5) * scale;
            w.extend([tie.next_down(), tie, tie.next_up()]);
        }
        w.resize(256, 0.0);
        let scheme = Scheme { group: Group::Columns(256), ..Scheme::default() };
        assert_same_quantization(FloatType::F32, &encode(FloatType::F32, &w), 256, &scheme);
    }
}

/// Results that are too large for the caches are written past them, where rows begin at
/// suitable addresses: with 4100 columns some do, and with 4096 rows lie end to end.
#[test]
fn large_results_are_the_same() {
    for k in [4096, 4100] {
        large_result_is_the_same(5500, k);
    }
}

fn large_result_is_the_same(n: usize, k: usize) {
    let w: Vec<u8> = (0..n * k).flat_map(|i| (0x3c00 | noise(4, i) as u16 & 0x81ff).to_le_bytes()).collect();
    let src = FloatRows::new(&w, FloatType::BF16, n, k).expect("sizes fit");
    let quantize = |cpu: Cpu| cpu.quantize(&src, &[n, k], &Scheme::default(), Threads::ALL).expect("finite");
    let expected = quantize(scalar());
    assert!(expected.packed().len() > 16 << 20);
    let mut floats = vec![0; n * k * 2];
    dequantize(scalar(), &expected, FloatType::BF16, &mut floats);
    for cpu in others() {
        let q = quantize(cpu);
        assert!(
            q.packed()[..] == expected.packed()[..] && q.scales()[..] == expected.scales()[..],
            "{}",
            cpu.isa()
        );
        let mut found = vec![0; floats.len()];
        dequantize(cpu, &q, FloatType::BF16, &mut found);
        assert!(found == floats, "{}", cpu.isa());
    }
}

#[test]
fn the_first_bad_element_is_named() {
    for (dtype, bad) in [FloatType::F32, FloatType::F16, FloatType::BF16]
        .into_iter()
        .flat_map(|dtype| [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].map(|bad| (dtype, bad)))
    {
        for (columns, column) in
            [(300, 0), (300, 5), (300, 128), (300, 299), (384, 0), (384, 127), (384, 383)]
        {
            let mut w = vec![0.25f32; 3 * columns];
            w[columns + column] = bad;
            w[2 * columns] = bad;
            let bytes = encode(dtype, &w);
            let src = FloatRows::new(&bytes, dtype, 3, columns).expect("sizes fit");
            for cpu in others().chain([scalar()]) {
                let error = quantize(cpu, &src, &Scheme::default()).expect_err("not finite");
                let place = format!("row 1, column {column} holds");
                assert!(error.contains(&place), "{}: {error}", cpu.isa());
            }
        }
    }
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

#[test]
fn gathered_rows_are_the_rows() {
    let (n, k) = (9, 130);
    let w: Vec<f32> = (0..n * k).map(|i| noise(5, i) as f32 / 2.0f32.powi(31) - 1.0).collect();
    let w = encode(FloatType::F32, &w);
    let src = FloatRows::new(&w, FloatType::F32, n, k).expect("sizes fit");
    let q = flexq_core::quantize(&src, &[n, k], &Scheme::default(), Threads::ALL).expect("finite");
    let mut all = vec![0; n * k * 2];
    dequantize(Cpu::default(), &q, FloatType::BF16, &mut all);
    let indices = [8, 0, 3, 3, 7];
    let mut some = vec![0; indices.len() * k * 2];
    let mut out = FloatRowsMut::new(&mut some, FloatType::BF16, indices.len(), k).expect("sizes fit");
    flexq_core::gather(&q, &indices, &mut out, Threads::ALL).expect("in range");
    for (row, index) in some.chunks(2 * k).zip(indices) {
        assert_eq!(row, &all[index * 2 * k..][..2 * k]);
    }
    let mut out = FloatRowsMut::new(&mut some[..2 * k], FloatType::BF16, 1, k).expect("sizes fit");
    let error = flexq_core::gather(&q, &[9], &mut out, Threads::ALL).expect_err("out of range");
    assert_eq!(error.to_string(), "row 9: expected 0 <= row < 9");
}
