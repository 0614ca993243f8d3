//! Kernels for AVX-512 with VBMI and VNNI: Intel since Ice Lake (2019), AMD since Zen 4 (2022).
//!
//! What is not here is AVX2's. As there, the functions in the table are safe wrappers, and
//! vectors are handled in loops, not in closures given to `map` or `from_fn`.

mod scales;
mod stream;
mod tile;
mod transpose;
mod unpack;
mod vnni;

use super::avx2;
use crate::arch::{Kernels, Layout, QuantizedRows, Scratch, Stripe, Weights};

pub(super) use tile::{Engine, Job, SUMS, TILE, add_segment, multiply};

pub(in crate::arch) fn is_available() -> bool {
    avx2::is_available()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("avx512vnni")
}

pub(in crate::arch) const KERNELS: Kernels = Kernels { layout, interleave, multiply_codes, ..avx2::KERNELS };

fn layout(rows: usize) -> Layout {
    if rows <= stream::MAX_ROWS { Layout::Rows } else { Layout::Blocks }
}

fn interleave(rows: &[i8], stride: usize, block: &mut [i8]) {
    // SAFETY: the instructions are there, see above.
    unsafe { transpose::interleave(rows, stride, block) }
}

fn multiply_codes(w: &Weights<'_>, x: &QuantizedRows, out: &mut Stripe<'_>, scratch: &mut Scratch) {
    // SAFETY: the instructions are there, see above.
    unsafe {
        match x.layout {
            Layout::Rows => stream::multiply(w, x, out, scratch),
            Layout::Blocks => multiply(w, x, out, scratch, vnni::ENGINE),
        }
    }
}
