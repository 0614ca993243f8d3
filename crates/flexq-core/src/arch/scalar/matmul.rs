//! Products, one weight row at a time.

use super::super::{ACTIVATION_GROUP, QuantizedRows, Scratch, Stripe, Weights};
use super::convert::from_f32;
use super::pack::{dequantize_to_f32, unpack_row};
use crate::scheme::Scheme;

/// Lanes of the partial sums of a product with floats.
const LANES: usize = 16;

/// Segments in order; each an exact integer sum times the two scales.
pub(in crate::arch) fn multiply_codes(
    w: &Weights<'_>,
    x: &QuantizedRows,
    out: &mut Stripe<'_>,
    scratch: &mut Scratch,
) {
    let (columns, width) = (out.columns(), w.segment_width());
    let scale_width = w.scale_width();
    let groups = w.columns.div_ceil(ACTIVATION_GROUP);
    let Scratch { codes, sums, .. } = scratch;
    codes.resize(w.columns, 0);
    sums.resize(x.rows * columns.len());
    for (i, n) in columns.clone().enumerate() {
        unpack_row(w.packed_row(n), codes);
        let scales = w.scales_row(n);
        for m in 0..x.rows {
            let activations = &x.codes[m * x.stride..][..w.columns];
            let mut y = 0.0;
            for (j, (w_codes, x_codes)) in codes.chunks(width).zip(activations.chunks(width)).enumerate() {
                let dot: i32 = w_codes.iter().zip(x_codes).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
                let w_scale = w.scale_type.from_bits(w.scale_at(scales, j * width / scale_width));
                let x_scale = x.scales[m * groups + j * width / ACTIVATION_GROUP];
                y += x_scale * w_scale * dot as f32;
            }
            sums[m * columns.len() + i] = y;
        }
    }
    write(out, sums);
}

/// Column `k` adds to lane `k mod 16`; the upper half of the lanes is added to the
/// lower until one is left.
pub(in crate::arch) fn multiply_floats(
    w: &Weights<'_>,
    x: &[f32],
    out: &mut Stripe<'_>,
    scratch: &mut Scratch,
) {
    let (columns, rows) = (out.columns(), out.rows());
    let Scratch { floats, sums, .. } = scratch;
    floats.resize(w.columns, 0.0);
    sums.resize(rows * columns.len());
    for (i, n) in columns.clone().enumerate() {
        let scheme = Scheme { group: w.group, scale_type: w.scale_type, ..Scheme::default() };
        dequantize_to_f32(&scheme, w.packed_row(n), w.scales_row(n), floats);
        for m in 0..rows {
            sums[m * columns.len() + i] = dot(floats, &x[m * w.columns..][..w.columns]);
        }
    }
    write(out, sums);
}

fn dot(w: &[f32], x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for (w, x) in w.chunks(LANES).zip(x.chunks(LANES)) {
        for (lane, (&w, &x)) in lanes.iter_mut().zip(w.iter().zip(x)) {
            *lane += w * x;
        }
    }
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Stores a stripe computed in f32, `[rows, columns]`.
fn write(out: &mut Stripe<'_>, sums: &[f32]) {
    let dtype = out.dtype();
    let width = out.columns().len();
    for m in 0..out.rows() {
        from_f32(dtype, &sums[m * width..][..width], out.row_mut(m));
    }
}
