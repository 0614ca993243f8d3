//! Kernels against the ceilings of the machine, interleaved.
//!
//! Every round runs every case of a group once, so that a change of the machine's speed
//! hits all of them; the table gives medians over the rounds. Products are checked against
//! the scalar kernels before they are timed, and read weights that no cache holds.
//!
//! `cargo bench -p flexq-core --bench cpu -- [--threads 2] [--rounds 9] [--cold 2048] [--only WORDS]`
//!
//! `--only "product 4096x4096 A8 avx512"` runs the cases whose names hold all these words,
//! beside the ceilings.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a bench may stop at the first surprise")]

mod ceilings;

use std::cell::Cell;
use std::hint::black_box;
use std::time::Instant;

use flexq_core::{
    ActivationBits, Cpu, FloatRows, FloatRowsMut, FloatType, Isa, MatmulOptions, QTensor, ScaleRule, Scheme,
    Threads,
};

/// N and K of layers of 7B and 8B models.
const SHAPES: [(usize, usize); 3] = [(4096, 4096), (14336, 4096), (4096, 14336)];
const ROWS: [usize; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 128, 256, 512];
/// Mebibytes of the copies of a weight that are multiplied in turn, so that none is found in
/// a cache: processors of servers have hundreds.
const COLD: usize = 2048;
/// Rows of a weight that are checked against the scalar kernels.
const CHECKED: usize = 48;

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
    threads: Threads,
    rounds: usize,
    /// Bytes to read before any is read again.
    cold: usize,
    only: String,
}

impl Arguments {
    fn parse() -> Self {
        let words: Vec<String> = std::env::args().collect();
        let value = |name: &str| words.iter().position(|word| word == name).and_then(|i| words.get(i + 1));
        let number = |name: &str, default| value(name).and_then(|text| text.parse().ok()).unwrap_or(default);
        Self {
            threads: Threads::new(number("--threads", 0)),
            rounds: number("--rounds", 9),
            cold: number("--cold", COLD) << 20,
            only: value("--only").cloned().unwrap_or_default(),
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.only.split(' ').all(|word| name.split(' ').any(|part| word.is_empty() || part == word))
    }
}

fn main() {
    let arguments = Arguments::parse();
    let sets: Vec<Cpu> = Isa::ALL.into_iter().filter_map(Cpu::with_isa).collect();
    let names: Vec<&str> = sets.iter().map(|cpu| cpu.isa().name()).collect();
    let threads = arguments.threads.count();
    println!("threads {threads}, rounds {}, kernels {}", arguments.rounds, names.join(" "));
    // the scalar kernels would take most of the time
    let sets: Vec<Cpu> = sets.into_iter().filter(|cpu| cpu.isa() != Isa::Scalar).collect();
    let memory = ceilings::Memory::new(arguments.cold);
    conversions(&sets, &memory, &arguments);
    for (n, k) in SHAPES {
        products(&sets, n, k, &memory, &arguments);
    }
}

/// Quantization and back, beside copies of the same memory.
fn conversions(sets: &[Cpu], memory: &ceilings::Memory, arguments: &Arguments) {
    let threads = arguments.threads;
    let (rows, columns) = ((256 << 20) / 8192, 4096);
    let moved = (rows * columns) as f64 * 2.766;
    let quantize = |rule: ScaleRule, cpu: &Cpu| format!("quantize {rule} {}", cpu.isa());
    let dequantize = |cpu: &Cpu| format!("dequantize bf16 {}", cpu.isa());
    let wanted = |cpu: &Cpu| {
        ScaleRule::ALL.into_iter().any(|rule| arguments.wants(&quantize(rule, cpu)))
            || arguments.wants(&dequantize(cpu))
    };
    if !sets.iter().any(wanted) {
        return;
    }
    let bf16 = bf16_weights(rows * columns);
    let src = FloatRows::new(&bf16, FloatType::BF16, rows, columns).expect("sizes fit");
    let q = Cpu::default().quantize(&src, &[rows, columns], &Scheme::default(), threads).expect("finite");
    for cpu in sets {
        for rule in ScaleRule::ALL {
            let (mut packed, mut scales) =
                (vec![0u8; rows * columns / 4 * 3], vec![0u8; rows * columns / 64]);
            let scheme = Scheme { rule, ..Scheme::default() };
            let case = Case::new(quantize(rule, cpu), moved, 0.0, || {
                cpu.quantize_rows(&src, &scheme, &mut packed, &mut scales, threads).expect("finite");
            });
            run(vec![copy(memory, arguments), case], arguments);
        }
        let mut floats = vec![0u8; rows * columns * 2];
        let case = Case::new(dequantize(cpu), moved, 0.0, || {
            let mut out = FloatRowsMut::new(&mut floats, FloatType::BF16, rows, columns).expect("sizes fit");
            cpu.dequantize_rows(&q, 0..rows, &mut out, threads).expect("sizes fit");
        });
        run(vec![copy(memory, arguments), case], arguments);
    }
}

fn copy<'a>(memory: &'a ceilings::Memory, arguments: &Arguments) -> Case<'a> {
    let threads = arguments.threads.count();
    let mut target = vec![0u8; memory.part()];
    let bytes = 2.0 * memory.part() as f64;
    Case::new("ceiling copy", bytes, 0.0, move || memory.copy(threads, &mut target))
}

/// All products with one shape of weight, beside the ceilings.
fn products(sets: &[Cpu], n: usize, k: usize, memory: &ceilings::Memory, arguments: &Arguments) {
    let threads = arguments.threads;
    let copies = arguments.cold.div_ceil(n * k / 4 * 3);
    let w = bf16_weights(n * k);
    let src = FloatRows::new(&w, FloatType::BF16, n, k).expect("sizes fit");
    let scheme = Scheme::default();
    let first = flexq_core::quantize(&src, &[n, k], &scheme, threads).expect("finite");
    let largest = ROWS[ROWS.len() - 1];
    let x: Vec<u8> =
        (0..largest * k).flat_map(|i| half::bf16::from_f32(uniform(i as u64)).to_le_bytes()).collect();
    let weights: Cell<Vec<QTensor>> = Cell::default();
    // counted over all cases: none finds what the one before it has read
    let next = Cell::new(0);
    let (weights, next) = (&weights, &next);
    let mut cases = Vec::new();
    for m in ROWS {
        for bits in [ActivationBits::A8, ActivationBits::A16] {
            for &cpu in sets {
                let name = format!("product {n}x{k} {bits:?} M={m} {}", cpu.isa());
                if !arguments.wants(&name) {
                    continue;
                }
                let x = FloatRows::new(&x[..m * k * 2], FloatType::BF16, m, k).expect("sizes fit");
                let options = MatmulOptions { bits, threads, ..MatmulOptions::default() };
                check(cpu, &x, &first, &options);
                let mut y = vec![0u8; m * n * 2];
                let operations = 2.0 * (m * n * k) as f64;
                cases.push(Case::new(name, first.nbytes() as f64, operations, move || {
                    let w = weights.take();
                    next.set((next.get() + 1) % w.len());
                    let mut y = FloatRowsMut::new(&mut y, FloatType::BF16, m, n).expect("sizes fit");
                    cpu.matmul(&x, &w[next.get()], &options, &mut y).expect("sizes fit");
                    weights.set(w);
                }));
            }
        }
    }
    if cases.is_empty() {
        return;
    }
    let copies = (0..copies).map(|_| {
        let (packed, scales) = (first.packed().to_vec(), first.scales().to_vec());
        QTensor::from_parts(vec![n, k], FloatType::BF16, scheme, packed.into(), scales.into())
            .expect("sizes fit")
    });
    weights.set(copies.collect());
    let count = threads.count();
    cases.push(Case::new("ceiling read", memory.part() as f64, 0.0, move || {
        black_box(memory.sum(count));
    }));
    if let Some(operations) = ceilings::dot_products(count) {
        cases.push(Case::new("ceiling dot products", 0.0, operations, move || {
            ceilings::dot_products(count);
        }));
    }
    run(cases, arguments);
}

/// The first columns of a product against the scalar kernels': equal, or near for A16.
fn check(cpu: Cpu, x: &FloatRows<'_>, w: &QTensor, options: &MatmulOptions) {
    let scalar = Cpu::with_isa(Isa::Scalar).expect("always available");
    let product = |cpu: Cpu, w: &QTensor| {
        let mut bytes = vec![0; x.rows() * w.rows() * 4];
        let mut y = FloatRowsMut::new(&mut bytes, FloatType::F32, x.rows(), w.rows()).expect("sizes fit");
        cpu.matmul(x, w, options, &mut y).expect("sizes fit");
        bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect::<Vec<f32>>()
    };
    let expected = product(scalar, &w.slice(0..CHECKED).expect("rows are there"));
    let found = product(cpu, w);
    for (expected, found) in expected.chunks(CHECKED).zip(found.chunks(w.rows())) {
        for (&expected, &found) in expected.iter().zip(found) {
            let same = match options.bits {
                ActivationBits::A16 => (expected - found).abs() <= 1e-3,
                _ => expected.to_bits() == found.to_bits(),
            };
            assert!(same, "{} {:?}: {found} instead of {expected}", cpu.isa(), options.bits);
        }
    }
}

fn run(mut cases: Vec<Case<'_>>, arguments: &Arguments) {
    cases.retain(|case| case.name.starts_with("ceiling") || arguments.wants(&case.name));
    if cases.iter().all(|case| case.name.starts_with("ceiling")) {
        return;
    }
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
        if case.bytes > 0.0 {
            print!("  {:>6.1} GB/s", case.bytes / median * 1e-9);
        }
        if case.operations > 0.0 {
            print!("  {:>7.1} Gop/s", case.operations / median * 1e-9);
        }
        println!();
    }
}

/// A number in -1..1 that looks random.
fn uniform(i: u64) -> f32 {
    let x = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x >> 40) as f32 / (1 << 23) as f32 - 1.0
}

fn bf16_weights(count: usize) -> Vec<u8> {
    (0..count as u64).flat_map(|i| half::bf16::from_f32(uniform(i) * 0.05).to_le_bytes()).collect()
}
