//! Kernels for AVX-512 with VBMI and VNNI: Intel since Ice Lake (2019), AMD since Zen 4 (2022).
//!
//! What is not here is AVX2's. As there, the functions in the table are safe wrappers, and
//! vectors are handled in loops, not in closures given to `map` or `from_fn`.

mod activations;
mod convert;
mod dequantize;
mod digits;
mod float_tile;
mod largest;
mod memory;
mod pack;
mod quantize;
mod scales;
mod search;
mod stream;
mod tile;
mod transpose;
mod unpack;
mod vnni;
mod writer;

use super::avx2;
use crate::activations::{BlockCodes, Rule};
use crate::arch::{
    ACTIVATION_GROUP, Blocks, Buffer, Digits, Fault, Kernels, Layout, Out, QuantizedRows, Scratch, Stripe,
    Weights,
};
use crate::digits::Lines;
use crate::dtype::FloatType;
use crate::rows::FloatRows;
use crate::scheme::{ScaleType, Scheme};

pub(super) use activations::{VECTORS, load};
pub(super) use tile::{SUMS, write};
pub(super) use transpose::transpose;
pub(super) use unpack::{BLOCK, block_ahead, unpack_64};

/// Rows of A16 up to which digits are best.
const MAX_SPLIT: usize = 64;

pub(in crate::arch) fn is_available() -> bool {
    avx2::is_available()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("avx512vbmi2")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("bmi2")
}

pub(in crate::arch) const KERNELS: Kernels = Kernels {
    quantize_row,
    dequantize_row,
    unpack_row,
    pack_row,
    blocks: Some(Blocks { rows: stream::MAX_ROWS + 1, offsets: true, quantize: quantize_block }),
    digits: Some(Digits { rows: MAX_SPLIT, split, interleave }),
    multiply_codes,
    arrange_floats,
    multiply_floats,
    ..avx2::KERNELS
};

fn quantize_row(
    scheme: &Scheme,
    dtype: FloatType,
    src: &[u8],
    packed: &mut [u8],
    scales: &mut [u8],
    out: Out,
    scratch: &mut Scratch,
) -> Result<(), Fault> {
    if scheme.scale_type == ScaleType::Pair {
        return (avx2::KERNELS.quantize_row)(scheme, dtype, src, packed, scales, out, scratch);
    }
    // SAFETY: the instructions are there, see above.
    unsafe { quantize::quantize_row(scheme, dtype, src, packed, scales, out, scratch) }
}

fn dequantize_row(
    scheme: &Scheme,
    packed: &[u8],
    scales: &[u8],
    dtype: FloatType,
    dst: &mut [u8],
    out: Out,
    scratch: &mut Scratch,
) {
    if scheme.scale_type == ScaleType::Pair {
        return (avx2::KERNELS.dequantize_row)(scheme, packed, scales, dtype, dst, out, scratch);
    }
    // SAFETY: the instructions are there, see above.
    unsafe { dequantize::dequantize_row(scheme, packed, scales, dtype, dst, out, scratch) }
}

fn unpack_row(packed: &[u8], codes: &mut [i8]) {
    // SAFETY: the instructions are there, see above.
    unsafe { unpack::unpack_row(packed, codes) }
}

fn pack_row(codes: &[i8], packed: &mut [u8]) {
    // SAFETY: the instructions are there, see above.
    unsafe { pack::pack_row(codes, packed) }
}

pub(super) fn quantize_block(
    x: &FloatRows<'_>,
    row: usize,
    first: usize,
    rule: Rule,
    whole: &[f32],
    out: &mut BlockCodes<'_>,
) {
    // SAFETY: the instructions are there, see above.
    unsafe { activations::quantize_block(x, row, first, rule, whole, out) }
}

pub(super) fn split(x: &FloatRows<'_>, row: usize, first: usize, lines: &mut Lines) {
    // SAFETY: the instructions are there, see above.
    unsafe { digits::split(x, row, first, lines) }
}

pub(super) fn interleave(lines: &[i8], block: &mut [i8]) {
    // SAFETY: the instructions are there, see above.
    unsafe { transpose::interleave(lines, ACTIVATION_GROUP, block) }
}

fn multiply_codes(w: &Weights<'_>, x: &QuantizedRows, out: &mut Stripe<'_>, scratch: &mut Scratch) {
    // SAFETY: the instructions are there, see above.
    unsafe {
        match x.layout {
            Layout::Rows => stream::multiply(w, x, out, scratch),
            Layout::Blocks => tile::multiply(w, x, out, scratch),
        }
    }
}

fn arrange_floats(x: &[f32], columns: usize, arranged: &mut Buffer<f32>) {
    // SAFETY: the instructions are there, see above.
    unsafe { float_tile::arrange(x, columns, arranged) }
}

fn multiply_floats(w: &Weights<'_>, x: &[f32], out: &mut Stripe<'_>, scratch: &mut Scratch) {
    // SAFETY: the instructions are there, see above.
    unsafe { float_tile::multiply(w, x, out, scratch) }
}
