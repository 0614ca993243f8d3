//! Kernels for AMX, whose instructions multiply tiles of 16 rows: Intel since Sapphire
//! Rapids (2023). What is not here is AVX-512's.

mod detect;
mod float_product;
mod panel;
mod product;
mod split;
mod tiles;

use super::avx512;
use crate::arch::{Blocks, Digits, Kernels, Layout, QuantizedRows, Scratch, Stripe, Terms, Weights};
use crate::rows::FloatRows;

/// Rows of activations up to which AVX-512 streams weights as fast.
const MAX_STREAMED: usize = 4;

/// Rows of A16 up to which digits are better than terms.
const MAX_SPLIT: usize = 8;

pub(in crate::arch) fn is_available() -> bool {
    avx512::is_available() && detect::is_usable()
}

pub(in crate::arch) const KERNELS: Kernels = Kernels {
    blocks: Some(Blocks { rows: MAX_STREAMED + 1, offsets: false, quantize: avx512::quantize_block }),
    digits: Some(Digits { rows: MAX_SPLIT, split: avx512::split, interleave: avx512::interleave }),
    multiply_codes,
    terms: Some(Terms { rows: MAX_SPLIT + 1, split, multiply: multiply_terms }),
    ..avx512::KERNELS
};

fn multiply_codes(w: &Weights<'_>, x: &QuantizedRows, out: &mut Stripe<'_>, scratch: &mut Scratch) {
    match x.layout {
        Layout::Rows => (avx512::KERNELS.multiply_codes)(w, x, out, scratch),
        // SAFETY: the table is reachable only where `is_available`.
        Layout::Blocks => unsafe { product::multiply(w, x, out, scratch) },
    }
}

fn split(x: &FloatRows<'_>, row: usize, first: usize, terms: &mut [u32]) {
    // SAFETY: as above.
    unsafe { split::split_block(x, row, first, terms) }
}

fn multiply_terms(w: &Weights<'_>, x: &[u32], out: &mut Stripe<'_>, scratch: &mut Scratch) {
    // SAFETY: as above.
    unsafe { float_product::multiply(w, x, out, scratch) }
}
