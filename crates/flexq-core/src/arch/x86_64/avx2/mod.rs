//! Kernels for AVX2, FMA and F16C: every x86-64 processor since about 2013 (Intel) or 2017 (AMD).
//!
//! The functions in the table are safe wrappers: the table of an instruction set is
//! reachable only on processors that have it.
//!
//! Inside kernels vectors are handled in loops, not in closures given to `map` or
//! `from_fn`: those functions are compiled without AVX2, so such closures stay calls.

mod activations;
pub(super) mod convert;
mod dequantize;
mod dot;
mod floats;
mod memory;
mod pack;
mod panel;
mod quantize;
mod rows;
mod search;
mod stream;
mod tile;
pub(super) mod unpack;

use crate::arch::{Fault, Kernels, Out, QuantizedRows, Scratch, Stripe, Weights};
use crate::dtype::FloatType;
use crate::scheme::Scheme;

pub(super) use convert::from_f32;
pub(super) use rows::Rows;

pub(in crate::arch) fn is_available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

pub(in crate::arch) const KERNELS: Kernels = Kernels {
    quantize_row,
    dequantize_row,
    unpack_row,
    pack_row,
    to_f32,
    abs_max,
    quantize_activations,
    blocks: None,
    digits: None,
    terms: None,
    multiply_codes,
    arrange_floats: floats::arrange,
    multiply_floats,
};

fn quantize_row(
    scheme: &Scheme,
    dtype: FloatType,
    src: &[u8],
    packed: &mut [u8],
    scales: &mut [u8],
    _: Out,
    scratch: &mut Scratch,
) -> Result<(), Fault> {
    // SAFETY: the instructions are there, see above.
    unsafe { quantize::quantize_row(scheme, dtype, src, packed, scales, scratch) }
}

fn dequantize_row(
    scheme: &Scheme,
    packed: &[u8],
    scales: &[u8],
    dtype: FloatType,
    dst: &mut [u8],
    _: Out,
    scratch: &mut Scratch,
) {
    // SAFETY: the instructions are there, see above.
    unsafe { dequantize::dequantize_row(scheme, packed, scales, dtype, dst, scratch) }
}

fn unpack_row(packed: &[u8], codes: &mut [i8]) {
    // SAFETY: the instructions are there, see above.
    unsafe { unpack::unpack_row(packed, codes) }
}

fn pack_row(codes: &[i8], packed: &mut [u8]) {
    // SAFETY: the instructions are there, see above.
    unsafe { pack::pack_row(codes, packed) }
}

fn to_f32(dtype: FloatType, src: &[u8], dst: &mut [f32]) {
    // SAFETY: the instructions are there, see above.
    unsafe { convert::to_f32(dtype, src, dst) }
}

fn abs_max(x: &[f32]) -> f32 {
    // SAFETY: the instructions are there, see above.
    unsafe { activations::abs_max(x) }
}

fn quantize_activations(x: &[f32], scale: f32, limit: f32, codes: &mut [i8]) {
    // SAFETY: the instructions are there, see above.
    unsafe { activations::quantize_activations(x, scale, limit, codes) }
}

fn multiply_codes(w: &Weights<'_>, x: &QuantizedRows, out: &mut Stripe<'_>, scratch: &mut Scratch) {
    // SAFETY: the instructions are there, see above.
    unsafe {
        if x.rows <= stream::MAX_ROWS {
            stream::multiply(w, x, out, scratch);
        } else {
            tile::multiply(w, x, out, scratch);
        }
    }
}

fn multiply_floats(w: &Weights<'_>, x: &[f32], out: &mut Stripe<'_>, scratch: &mut Scratch) {
    // SAFETY: the instructions are there, see above.
    unsafe { floats::multiply(w, x, out, scratch) }
}
