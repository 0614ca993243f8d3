//! Quantization, packing, and the ways back.

use flexq_core::{Cpu, FloatRows, FloatRowsMut, FloatType, Group, QTensor, ScaleRule, Scheme, Threads};
use half::f16;
use proptest::prelude::*;

use crate::data::{COLUMNS, FLOAT_TYPES, decode, dequantize, encode, noise, others, scalar, schemes, tensor};

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
