//! Products of activations with a packed weight.
//!
//! # The arithmetic
//! `y[m, n] = sum over k of x[m, k] w[n, k]`, that is `x` times the transposed weight.
//!
//! With quantized activations (see [`activations`](crate::activations)) the columns are
//! cut into segments of the columns that share a weight scale, but at most 128. From left to right,
//! each adds `(sx * sw) * f32(dot)` in single precision, unfused, where `dot` is the exact
//! integer product of its codes. The result is the same for every instruction set, number
//! of threads and number of rows.
//!
//! With A16, `x` is multiplied with `code * scale` and summed in single precision in an
//! order that depends on the instruction set but not on the number of threads. With AVX-512, few
//! rows are multiplied as whole numbers to the base 256 (see `digits`), and with AMX more rows as sums of
//! bf16 numbers; products with these are exact and scaled once a segment. An `x` of less than 2^-100 in
//! magnitude may count as zero, and one of 2^112 or more as infinite.
//!
//! Both round to the output type at the end, half to even.

use std::cell::Cell;

use crate::activations::{self, ActivationBits, ActivationGroup, Rule};
use crate::arch::{ACTIVATION_GROUP, Buffer, LANES, QuantizedRows, Scratch, Stripes, Terms, Weights};
use crate::backend::Cpu;
use crate::digits;
use crate::error::{Error, Result};
use crate::qtensor::QTensor;
use crate::rows::{FloatRows, FloatRowsMut};
use crate::threads::{Threads, for_each};

/// How a product is computed.
#[derive(Clone, Copy, Debug, Default)]
pub struct MatmulOptions {
    /// Precision of the activations.
    pub bits: ActivationBits,
    /// Columns per activation scale; without effect for A16.
    pub group: ActivationGroup,
    /// Threads to use.
    pub threads: Threads,
}

/// `out = x w^T`: `x [M, K]`, `w [N, K]`, `out [M, N]`, each of any floating-point type.
///
/// # Errors
/// [`Error::Length`] unless the shapes fit and `w` is a matrix.
pub fn matmul(
    x: &FloatRows<'_>,
    w: &QTensor,
    options: &MatmulOptions,
    out: &mut FloatRowsMut<'_>,
) -> Result<()> {
    Cpu::default().matmul(x, w, options, out)
}

/// Memory that a thread keeps between calls.
#[derive(Default)]
struct Workspace {
    floats: Vec<f32>,
    arranged: Buffer<f32>,
    quantized: QuantizedRows,
    terms: Buffer<u32>,
}

thread_local! {
    static WORKSPACE: Cell<Workspace> = Cell::default();
    static SCRATCH: Cell<Scratch> = Cell::default();
}

impl Cpu {
    /// [`matmul`] with these kernels.
    ///
    /// # Errors
    /// As [`matmul`].
    pub fn matmul(
        self,
        x: &FloatRows<'_>,
        w: &QTensor,
        options: &MatmulOptions,
        out: &mut FloatRowsMut<'_>,
    ) -> Result<()> {
        check_shapes(x, w, out)?;
        if w.columns() == 0 {
            out.bytes_mut().fill(0);
            return Ok(());
        }
        let kernels = self.kernels();
        let weights = Weights::new(w);
        let threads = multiplying_threads(x.rows(), w, options.threads);
        let preparing = preparing_threads(x.rows() * x.columns(), threads);
        let stripes = Stripes::new(out, threads.count());
        // taken, so that other threads may borrow it
        let mut workspace = WORKSPACE.take();
        let Workspace { floats, arranged, quantized, terms } = &mut workspace;
        let segment = weights.segment_width();
        let codes = if let Some(limit) = options.bits.limit() {
            let rule = Rule { limit, group: options.group, segment };
            activations::quantize(kernels, x, rule, preparing, quantized);
            true
        } else {
            let digits = kernels.digits.as_ref().filter(|digits| x.rows() <= digits.rows);
            digits.is_some_and(|digits| digits::split(kernels, digits, x, segment, preparing, quantized))
        };
        if codes {
            for_each(threads, stripes, |mut stripe| {
                let mut scratch = SCRATCH.take();
                (kernels.multiply_codes)(&weights, quantized, &mut stripe, &mut scratch);
                SCRATCH.set(scratch);
            });
        } else if let Some(kernels) = kernels.terms.as_ref().filter(|kernels| x.rows() >= kernels.rows) {
            split(kernels, x, preparing, terms);
            for_each(threads, stripes, |mut stripe| {
                let mut scratch = SCRATCH.take();
                (kernels.multiply)(&weights, terms, &mut stripe, &mut scratch);
                SCRATCH.set(scratch);
            });
        } else {
            floats.resize(x.rows() * x.columns(), 0.0);
            (kernels.to_f32)(x.dtype(), x.bytes(), floats);
            (kernels.arrange_floats)(floats, x.columns(), arranged);
            for_each(threads, stripes, |mut stripe| {
                let mut scratch = SCRATCH.take();
                (kernels.multiply_floats)(&weights, arranged, &mut stripe, &mut scratch);
                SCRATCH.set(scratch);
            });
        }
        WORKSPACE.set(workspace);
        Ok(())
    }
}

/// The threads for a product of `m` rows: one where that takes no longer than for two to meet.
fn multiplying_threads(m: usize, w: &QTensor, threads: Threads) -> Threads {
    const FEW: usize = 256 << 10;
    let work = w.rows().saturating_mul(w.columns()).saturating_mul(LANES + m) / LANES;
    if work < FEW { Threads::ONE } else { threads }
}

/// The threads that prepare so many activations. Those that come too late for that are awake for
/// the product.
fn preparing_threads(activations: usize, threads: Threads) -> Threads {
    const FEW: usize = 8 << 10;
    if activations > FEW { threads } else { Threads::ONE }
}

/// Activations as sums of bf16 numbers; threads take 128 columns of all rows at a time.
fn split(kernels: &Terms, x: &FloatRows<'_>, threads: Threads, terms: &mut Buffer<u32>) {
    let pairs = Terms::pairs(x.dtype());
    let blocks = x.rows().div_ceil(LANES);
    terms.resize(x.columns().div_ceil(ACTIVATION_GROUP) * blocks * pairs);
    for_each(threads, terms.chunks_exact_mut(blocks * pairs).enumerate(), |(group, terms)| {
        for (block, terms) in terms.chunks_exact_mut(pairs).enumerate() {
            (kernels.split)(x, block * LANES, group * ACTIVATION_GROUP, terms);
        }
    });
}

fn check_shapes(x: &FloatRows<'_>, w: &QTensor, out: &FloatRowsMut<'_>) -> Result<()> {
    if w.shape().len() != 2 {
        return Err(Error::length("dimensions of the weight of a product", 2, w.shape().len()));
    }
    if x.columns() != w.columns() {
        return Err(Error::length("columns of the activations", w.columns(), x.columns()));
    }
    if out.rows() != x.rows() {
        return Err(Error::length("rows of the output", x.rows(), out.rows()));
    }
    if out.columns() != w.rows() {
        return Err(Error::length("columns of the output", w.rows(), out.columns()));
    }
    Ok(())
}
