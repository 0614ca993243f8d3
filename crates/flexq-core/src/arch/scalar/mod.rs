//! The kernels in plain Rust: what every other set must equal.

mod activations;
mod convert;
mod matmul;
mod pack;
mod pair;
mod quantize;
mod scale;

use super::Kernels;

pub(super) use activations::{abs_max, arrange_floats, quantize_activations};
pub(super) use convert::{from_f32, to_f32};
pub(super) use pack::{dequantize_row, pack, pack_row, unpack_row};
pub(super) use pair::quantize_row as quantize_row_of_pairs;
pub(super) use quantize::{code, quantize_row};
pub(super) use scale::{MSE_FACTORS, exact_scale, round_scale};

pub(super) static KERNELS: Kernels = Kernels {
    quantize_row,
    dequantize_row,
    unpack_row,
    pack_row,
    to_f32,
    abs_max,
    quantize_activations,
    blocks: None,
    digits: None,
    multiply_codes: matmul::multiply_codes,
    arrange_floats,
    multiply_floats: matmul::multiply_floats,
    terms: None,
};
