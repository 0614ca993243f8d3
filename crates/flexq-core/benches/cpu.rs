//! Kernels against the ceilings of the machine, interleaved.
//!
//! Every round runs every case once, so that a change of the machine's speed hits all of
//! them; the table gives medians over the rounds. Products are checked against the scalar
//! kernels before they are timed, on weights larger than the caches.
//!
//! `cargo bench -p flexq-core --bench cpu -- [--threads 2] [--rounds 9] [--only TEXT]`

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a bench may stop at the first surprise")]

use std::hint::black_box;
use std::time::Instant;

use flexq_core::{
    ActivationBits, Cpu, FloatRows, FloatRowsMut, FloatType, Isa, MatmulOptions, QTensor, ScaleRule, Scheme,
    Threads,
};

/// N and K of layers of 7B and 8B models.
const SHAPES: [(usize, usize); 3] = [(4096, 4096), (14336, 4096), (4096, 14336)];
const ROWS: [usize; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 128, 256, 512];
/// Size of the copies of a weight that are multiplied in turn, so that none is found in a
/// cache: processors of servers have hundreds of megabytes.
const COLD_BYTES: usize = 2 << 30;

struct Case<'a> {
    name: String,
    /// Bytes that must be read and written.
    bytes: f64,
    /// Multiplications and additions.
    operations: f64,
    run: Box<dyn FnMut() + 'a>,
    seconds: Vec<f64>,
}

impl<'a> Case<'a> {
    fn new(name: impl Into<String>, bytes: f64, operations: f64, run: impl FnMut() + 'a) -> Self {
        Self { name: name.into(), bytes, operations, run: Box::new(run), seconds: Vec::new() }
    }
}

struct Arguments {
    threads: usize,
    rounds: usize,
    only: String,
}

fn main() {
    let arguments = parse();
    let threads = Threads::new(arguments.threads);
    let sets: Vec<Cpu> = Isa::ALL.into_iter().filter_map(Cpu::with_isa).collect();
    println!(
        "threads {}, rounds {}, kernels {}",
        threads.count(),
        arguments.rounds,
        sets.iter().map(|cpu| cpu.isa().name()).collect::<Vec<_>>().join(" ")
    );
    // the scalar kernels would take most of the time
    let sets: Vec<Cpu> = sets.into_iter().filter(|cpu| cpu.isa() != Isa::Scalar).collect();

    let source = noise(256 << 20);
    let (rows, columns) = ((256 << 20) / 8192, 4096);
    let bf16 = bf16_weights(rows * columns);
    let mut copy = vec![0u8; source.len()];
    let (mut packed, mut scales) = (vec![0u8; rows * columns / 4 * 3], vec![0u8; rows * columns / 64]);
    let mut floats = vec![0u8; rows * columns * 2];
    let mut cases = Vec::new();
    cases.push(Case::new("ceiling copy", 2.0 * source.len() as f64, 0.0, || {
        split_copy(threads.count(), &source, &mut copy);
    }));
    cases.push(Case::new("ceiling read", source.len() as f64, 0.0, || {
        black_box(split_sum(threads.count(), &source));
    }));
    run(cases, &arguments);

    let src = FloatRows::new(&bf16, FloatType::BF16, rows, columns).expect("sizes fit");
    let q = Cpu::default().quantize(&src, &[rows, columns], &Scheme::default(), threads).expect("finite");
    for cpu in &sets {
        let moved = (rows * columns) as f64 * 2.766;
        for rule in [ScaleRule::AbsMax31, ScaleRule::AbsMax32s, ScaleRule::Mse] {
            let scheme = Scheme { rule, ..Scheme::default() };
            let case = Case::new(format!("quantize {rule} {}", cpu.isa()), moved, 0.0, || {
                cpu.quantize_rows(&src, &scheme, &mut packed, &mut scales, threads).expect("finite");
            });
            run(
                vec![
                    case,
                    Case::new("ceiling copy", 2.0 * source.len() as f64, 0.0, || {
                        split_copy(threads.count(), &source, &mut copy);
                    }),
                ],
                &arguments,
            );
        }
        let case = Case::new(format!("dequantize bf16 {}", cpu.isa()), moved, 0.0, || {
            let mut out = FloatRowsMut::new(&mut floats, FloatType::BF16, rows, columns).expect("sizes fit");
            cpu.dequantize_rows(&q, 0..rows, &mut out, threads).expect("sizes fit");
        });
        run(vec![case], &arguments);
    }
    for (n, k) in SHAPES {
        products(&sets, n, k, &source, threads, &arguments);
    }
}

/// All products with one shape of weight, and the read ceiling beside them.
fn products(sets: &[Cpu], n: usize, k: usize, source: &[u8], threads: Threads, arguments: &Arguments) {
    let copies = COLD_BYTES.div_ceil(n * k / 4 * 3);
    let w = bf16_weights(n * k);
    let src = FloatRows::new(&w, FloatType::BF16, n, k).expect("sizes fit");
    let scheme = Scheme::default();
    let first = flexq_core::quantize(&src, &[n, k], &scheme, threads).expect("finite");
    let weights: Vec<QTensor> = (0..copies)
        .map(|_| {
            let (packed, scales) = (first.packed().to_vec(), first.scales().to_vec());
            QTensor::from_parts(vec![n, k], FloatType::BF16, scheme, packed.into(), scales.into())
                .expect("sizes fit")
        })
        .collect();
    let largest = ROWS[ROWS.len() - 1];
    let x: Vec<u8> = (0..largest * k).flat_map(|i| uniform(i as u64).to_le_bytes()).collect();
    let mut cases = vec![Case::new("ceiling read", source.len() as f64, 0.0, || {
        black_box(split_sum(threads.count(), source));
    })];
    for m in ROWS {
        for bits in [ActivationBits::A8, ActivationBits::A16] {
            for &cpu in sets {
                let x = FloatRows::new(&x[..m * k * 4], FloatType::F32, m, k).expect("sizes fit");
                let options = MatmulOptions { bits, threads, ..MatmulOptions::default() };
                let mut y = vec![0u8; m * n * 4];
                let mut next = 0;
                let name = format!("product {n}x{k} {bits:?} M={m} {}", cpu.isa());
                let operations = 2.0 * (m * n * k) as f64;
                let weights = &weights;
                cases.push(Case::new(name, weights[0].nbytes() as f64, operations, move || {
                    next = (next + 1) % weights.len();
                    let mut y = FloatRowsMut::new(&mut y, FloatType::F32, m, n).expect("sizes fit");
                    cpu.matmul(&x, &weights[next], &options, &mut y).expect("sizes fit");
                }));
            }
        }
    }
    run(cases, arguments);
}

fn run(mut cases: Vec<Case<'_>>, arguments: &Arguments) {
    cases.retain(|case| case.name.contains(&arguments.only));
    for round in 0..=arguments.rounds {
        for case in &mut cases {
            let start = Instant::now();
            (case.run)();
            if round > 0 {
                case.seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    for case in &mut cases {
        case.seconds.sort_by(f64::total_cmp);
        let median = case.seconds[case.seconds.len() / 2];
        let least = case.seconds[0];
        print!("{:<42} {:>10.1} us (best {:>9.1})", case.name, median * 1e6, least * 1e6);
        print!("  {:>6.1} GB/s", case.bytes / median * 1e-9);
        if case.operations > 0.0 {
            print!("  {:>7.1} Gop/s", case.operations / median * 1e-9);
        }
        println!();
    }
}

fn parse() -> Arguments {
    let words: Vec<String> = std::env::args().collect();
    let value = |name: &str| words.iter().position(|word| word == name).and_then(|i| words.get(i + 1));
    let number = |name: &str, default| value(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    Arguments {
        threads: number("--threads", 0),
        rounds: number("--rounds", 9),
        only: value("--only").cloned().unwrap_or_default(),
    }
}

fn split_copy(threads: usize, source: &[u8], copy: &mut [u8]) {
    let part = source.len().div_ceil(threads);
    std::thread::scope(|scope| {
        for (source, copy) in source.chunks(part).zip(copy.chunks_mut(part)) {
            scope.spawn(move || copy.copy_from_slice(source));
        }
    });
}

fn split_sum(threads: usize, source: &[u8]) -> u64 {
    let part = source.len().div_ceil(threads);
    std::thread::scope(|scope| {
        let parts: Vec<_> = source.chunks(part).map(|source| scope.spawn(move || sum(source))).collect();
        parts.into_iter().map(|part| part.join().expect("no panic")).fold(0, u64::wrapping_add)
    })
}

/// The sum of all words, in as many chains as the compiler likes to vectorize.
fn sum(source: &[u8]) -> u64 {
    let mut lanes = [0u64; 32];
    for chunk in source.as_chunks::<256>().0 {
        for (lane, word) in lanes.iter_mut().zip(chunk.as_chunks::<8>().0) {
            *lane = lane.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    lanes.into_iter().fold(0, u64::wrapping_add)
}

/// A number in -1..1 that looks random.
fn uniform(i: u64) -> f32 {
    let x = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x >> 40) as f32 / (1 << 23) as f32 - 1.0
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u64 / 8).flat_map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect()
}

fn bf16_weights(count: usize) -> Vec<u8> {
    (0..count as u64).flat_map(|i| half::bf16::from_f32(uniform(i) * 0.05).to_le_bytes()).collect()
}
