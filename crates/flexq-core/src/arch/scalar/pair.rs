//! Rows whose scales come in pairs: see [`pair`](crate::pair) for the arithmetic.
//!
//! Every instruction set compiles this code with its own instructions, hence `inline(always)`;
//! no operation is fused, so the results are the same.

#![allow(clippy::inline_always, reason = "see above")]

use super::pack::pack;
use super::quantize::code;
use super::scale::{exact_scale, squared_error, sum_of_squares};
use crate::arch::Fault;
use crate::pair::{self, MAX_PLACE, REACH};
use crate::scheme::{ScaleRule, ScaleType, Scheme};

/// Steps of the `mse` search from the place of either scale, in the order tried. In groups as
/// short as these a larger scale often meets more weights than the one that just fits the
/// largest, and a smaller one never pays.
const STEPS: [i32; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, -1, -2];

/// Quantizes and packs a row that was converted to f32.
#[inline(always)]
pub(in crate::arch) fn quantize_row(
    scheme: &Scheme,
    row: &[f32],
    packed: &mut [u8],
    words: &mut [u8],
) -> Result<(), Fault> {
    if let Some(column) = row.iter().position(|w| !w.is_finite()) {
        return Err(Fault::NonFinite { column, value: row[column] });
    }
    let width = scheme.group.width(row.len());
    let half = width / 2;
    let packed = packed.chunks_mut(width * 3 / 4);
    for (group, ((w, packed), word)) in
        row.chunks(width).zip(packed).zip(words.as_chunks_mut::<2>().0).enumerate()
    {
        let halves = w.split_at(half.min(w.len()));
        let halves = [halves.0, halves.1];
        let found = word_of(scheme.rule, halves).map_err(|scale| Fault::Overflow { group, scale })?;
        for (i, (w, packed)) in halves.into_iter().zip(packed.chunks_mut(half * 3 / 4)).enumerate() {
            let scale = ScaleType::Pair.from_bits(pair::unpack(found, i));
            pack(packed, w.len(), |i| if scale == 0.0 { 0 } else { code(w[i], scale) });
        }
        *word = found.to_le_bytes();
    }
    Ok(())
}

/// The word of a group, or the scale that does not fit.
#[inline(always)]
fn word_of(rule: ScaleRule, halves: [&[f32]; 2]) -> Result<u16, f32> {
    let mut scales = [0.0; 2];
    let mut places = [0; 2];
    for ((w, scale), place) in halves.into_iter().zip(&mut scales).zip(&mut places) {
        let low = w.iter().fold(0.0f32, |low, &w| low.min(w));
        let high = w.iter().fold(0.0f32, |high, &w| high.max(w));
        *scale = exact_scale(rule, low, high);
        *place = pair::place(ScaleType::Pair.to_bits(scale.abs()));
        if *place > MAX_PLACE {
            return Err(*scale);
        }
    }
    let first = places[0].max(places[1] - REACH.end());
    let places = [first, places[1].max(first + REACH.start())];
    let negative = [scales[0] < 0.0, scales[1] < 0.0];
    let places = match rule {
        ScaleRule::Mse => search(places, negative, halves),
        // the second scale must not fall below what its half needs
        _ => [places[0], places[1] + (places[1] - places[0]).rem_euclid(2)],
    };
    Ok(pair::pack(places, negative))
}

/// The candidate of least error.
#[inline(always)]
fn search(places: [i32; 2], negative: [bool; 2], halves: [&[f32]; 2]) -> [i32; 2] {
    let mut errors = [[0.0; STEPS.len()]; 2];
    for (h, (errors, w)) in errors.iter_mut().zip(halves).enumerate() {
        for (error, step) in errors.iter_mut().zip(STEPS) {
            *error = error_of(w, places[h] + step, negative[h]);
        }
    }
    let mut best = ([0; 2], f32::INFINITY);
    for (i, first) in STEPS.into_iter().enumerate() {
        for (j, second) in STEPS.into_iter().enumerate() {
            let candidate = [places[0] + first, places[1] + second];
            let step = candidate[1] - candidate[0];
            let valid = (0..=MAX_PLACE).contains(&candidate[0])
                && candidate[1] >= 0
                && step % 2 == 0
                && REACH.contains(&step);
            let error = errors[0][i] + errors[1][j];
            if valid && error < best.1 {
                best = (candidate, error);
            }
        }
    }
    best.0
}

/// The squared error of a half with the scale of a place.
#[inline(always)]
fn error_of(w: &[f32], place: i32, negative: bool) -> f32 {
    if place <= 0 {
        return sum_of_squares(w);
    }
    let scale = ScaleType::Pair.from_bits(pair::bits(place) | u16::from(negative) << 15);
    squared_error(w, 1.0 / scale) * (scale * scale)
}
