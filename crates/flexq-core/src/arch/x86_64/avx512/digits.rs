//! Activations as whole numbers of four digits.

use std::arch::x86_64::*;

use super::activations::{abs_max, load};
use crate::arch::{ACTIVATION_GROUP, DIGITS, LANES};
use crate::digits::Lines;
use crate::rows::FloatRows;

/// The place of the largest digit.
const TOP: i32 = 24;

/// Digits of columns `first ..` of up to four rows from `row` on.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn split(x: &FloatRows<'_>, row: usize, first: usize, lines: &mut Lines) {
    // what is added to a number makes its bytes digits from 0 to 255, 128 too large but the top one
    let digits_128 = _mm512_set1_epi32(0x0080_8080);
    let size = x.dtype().size();
    let columns = ACTIVATION_GROUP.min(x.columns() - first);
    let lines = lines.codes.as_chunks_mut().0.iter_mut().zip(lines.scales.as_chunks_mut::<DIGITS>().0);
    for (row, (codes, scales)) in (row..x.rows()).zip(lines) {
        let codes: &mut [[i8; ACTIVATION_GROUP]; DIGITS] = codes;
        let x = load(x.dtype(), &x.row(row)[first * size..][..columns * size]);
        let largest = abs_max(&x);
        let unit = exponent_of_unit(largest);
        for (digit, scale) in scales.iter_mut().enumerate() {
            *scale = if largest.is_nan() { f32::NAN } else { power_of_two(unit + TOP - 8 * digit as i32) };
        }
        let units = _mm512_set1_ps(power_of_two(-unit));
        for (i, x) in x.into_iter().enumerate() {
            let number = _mm512_cvtps_epi32(_mm512_mul_ps(x, units));
            let mut digits = _mm512_xor_si512(_mm512_add_epi32(number, digits_128), digits_128);
            for codes in codes.iter_mut().rev() {
                let codes = &mut codes[LANES * i..][..LANES];
                // SAFETY: sixteen bytes were just checked.
                unsafe { _mm_storeu_si128(codes.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(digits)) };
                digits = _mm512_srli_epi32::<8>(digits);
            }
        }
    }
}

/// `e` for which 2^e goes into a finite number 2^29 times or more, and less than 2^30 times.
fn exponent_of_unit(largest: f32) -> i32 {
    const LEAST: i32 = -100;
    let exponent = (largest.to_bits() >> 23) as i32 - 127;
    (exponent - 29).max(LEAST)
}

/// 2^e; `e` is from -126 to 127.
fn power_of_two(e: i32) -> f32 {
    f32::from_bits(((e + 127) as u32) << 23)
}
