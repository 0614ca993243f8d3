//! Activations to codes.

use crate::arch::Buffer;

/// The largest magnitude; NaN when an element is not finite.
pub(in crate::arch) fn abs_max(x: &[f32]) -> f32 {
    let mut max = 0.0f32;
    let mut finite = true;
    for &x in x {
        max = max.max(x.abs());
        finite &= x.is_finite();
    }
    if finite { max } else { f32::NAN }
}

pub(in crate::arch) fn quantize_activations(x: &[f32], scale: f32, limit: f32, codes: &mut [i8]) {
    for (code, &x) in codes.iter_mut().zip(x) {
        *code = (x / scale).round_ties_even().clamp(-limit, limit) as i8;
    }
}

/// As they are.
pub(in crate::arch) fn arrange_floats(x: &[f32], _columns: usize, arranged: &mut Buffer<f32>) {
    arranged.resize(x.len());
    arranged.copy_from_slice(x);
}
