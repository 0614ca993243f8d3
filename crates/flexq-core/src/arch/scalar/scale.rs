//! The scale of a group.

use crate::scheme::{ScaleRule, ScaleType};

/// Steps of the `mse` search, as factors of the `absmax32s` scale. The first is the
/// scale itself, so that it wins ties.
pub(in crate::arch) const MSE_FACTORS: [f32; 16] =
    [1.0, 0.99, 0.98, 0.97, 0.96, 0.94, 0.92, 0.9, 0.87, 0.84, 0.8, 0.75, 1.01, 1.02, 1.03, 1.05];

/// Lanes of the partial sums of the `mse` search.
const LANES: usize = 16;

/// The stored bits of a group's scale, or the unrounded scale when those are infinite.
/// The elements of `w` are finite.
pub(in crate::arch) fn scale_bits(rule: ScaleRule, scale_type: ScaleType, w: &[f32]) -> Result<u16, f32> {
    let (mut low, mut high) = (0.0f32, 0.0f32);
    for &w in w {
        low = low.min(w);
        high = high.max(w);
    }
    let scale = exact_scale(rule, low, high);
    let bits = round_scale(scale_type, scale)?;
    Ok(match rule {
        ScaleRule::Mse if bits != 0 => search(scale_type, scale, bits, w),
        _ => bits,
    })
}

/// The scale before rounding (before the search, for `mse`) of a group whose least
/// and greatest elements, and zero, are `low` and `high`.
pub(in crate::arch) fn exact_scale(rule: ScaleRule, low: f32, high: f32) -> f32 {
    match rule {
        // there is nothing to quantize by `imported`: it is refused before any row is touched
        ScaleRule::AbsMax31 | ScaleRule::Imported => high.max(-low) / 31.0,
        ScaleRule::AbsMax32s | ScaleRule::Mse => (if high >= -low { high } else { low }) / -32.0,
    }
}

/// Rounds to the stored type. A scale that rounds to zero is stored as +0; one that
/// rounds to infinity is an error.
pub(in crate::arch) fn round_scale(scale_type: ScaleType, scale: f32) -> Result<u16, f32> {
    let bits = scale_type.to_bits(scale);
    let rounded = scale_type.from_bits(bits);
    if rounded.is_infinite() {
        Err(scale)
    } else if rounded == 0.0 {
        Ok(0)
    } else {
        Ok(bits)
    }
}

/// The first candidate of least squared error.
fn search(scale_type: ScaleType, scale: f32, bits: u16, w: &[f32]) -> u16 {
    let base = scale_type.from_bits(bits);
    let mut best = (bits, f32::INFINITY);
    for factor in MSE_FACTORS {
        let bits = scale_type.to_bits(scale * factor);
        let candidate = scale_type.from_bits(bits);
        let ratio = candidate / base;
        let error = squared_error(w, 1.0 / candidate) * (ratio * ratio);
        if error < best.1 {
            best = (bits, error);
        }
    }
    best.0
}

/// The squared error in units of the squared scale whose reciprocal is given: element
/// `i` adds to lane `i mod 16`, and the upper half of the lanes is added to the lower
/// until one is left. No operation is fused.
#[allow(clippy::inline_always, reason = "compiled anew for every instruction set, see `pair`")]
#[inline(always)]
pub(super) fn squared_error(w: &[f32], reciprocal: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for chunk in w.chunks(LANES) {
        for (lane, &w) in lanes.iter_mut().zip(chunk) {
            let t = w * reciprocal;
            let d = t - t.round_ties_even().clamp(-32.0, 31.0);
            *lane += d * d;
        }
    }
    sum(lanes)
}

/// The sum of the squares, in the same order.
#[allow(clippy::inline_always, reason = "compiled anew for every instruction set, see `pair`")]
#[inline(always)]
pub(super) fn sum_of_squares(w: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for chunk in w.chunks(LANES) {
        for (lane, &w) in lanes.iter_mut().zip(chunk) {
            *lane += w * w;
        }
    }
    sum(lanes)
}

#[allow(clippy::inline_always, reason = "compiled anew for every instruction set, see `pair`")]
#[inline(always)]
fn sum(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}
