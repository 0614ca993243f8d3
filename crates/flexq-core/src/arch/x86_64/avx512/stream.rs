//! Few rows of activations: weights pass through once, sixteen rows side by side.
//!
//! Every block of 128 columns of the sixteen rows is unpacked in registers and multiplied
//! with each row of activations; the sixteen integer sums of a segment end in one vector,
//! in which they are scaled and added from left to right as the definition asks.

use std::arch::x86_64::*;
use std::array::from_fn;

use super::super::avx2::{Rows, from_f32};
use super::tile::add_parts;
use super::unpack::{BLOCK, block_ahead, unpack_64};
use crate::arch::{ACTIVATION_GROUP, LANES, MAX_STRIPE, QuantizedRows, Scratch, Stripe, Weights};

/// Rows of activations up to which this beats [`tile`](super::tile).
pub(super) const MAX_ROWS: usize = 12;

/// How far ahead of the loads memory is asked for, in bytes of each row; past its end, in the row
/// that comes next in its place.
const AHEAD: usize = 512;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub(super) fn multiply(w: &Weights<'_>, x: &QuantizedRows, out: &mut Stripe<'_>, scratch: &mut Scratch) {
    match x.segment {
        16 => multiply_segments::<8, 2>(w, x, out, scratch),
        32 => multiply_segments::<4, 4>(w, x, out, scratch),
        64 => multiply_segments::<2, 2>(w, x, out, scratch),
        _ => multiply_segments::<1, 1>(w, x, out, scratch),
    }
}

/// `S`: segments per block; `D`: vectors of partial sums that they are kept in.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn multiply_segments<const S: usize, const D: usize>(
    w: &Weights<'_>,
    x: &QuantizedRows,
    out: &mut Stripe<'_>,
    scratch: &mut Scratch,
) {
    match x.rows {
        0 => {}
        1 => multiply_rows::<S, D, 1>(w, x, out, scratch),
        2 => multiply_rows::<S, D, 2>(w, x, out, scratch),
        3 => multiply_rows::<S, D, 3>(w, x, out, scratch),
        4 => multiply_rows::<S, D, 4>(w, x, out, scratch),
        5..=8 => multiply_rows::<S, D, 8>(w, x, out, scratch),
        _ => multiply_rows::<S, D, MAX_ROWS>(w, x, out, scratch),
    }
}

/// With up to `M` rows of activations; the last stands for those past it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn multiply_rows<const S: usize, const D: usize, const M: usize>(
    w: &Weights<'_>,
    x: &QuantizedRows,
    out: &mut Stripe<'_>,
    scratch: &mut Scratch,
) {
    let columns = out.columns();
    let blocks = x.stride / ACTIVATION_GROUP;
    let scales = &mut scratch.scales;
    scales.resize(blocks * S * LANES);
    let mut y = [[0.0f32; MAX_STRIPE]; M];
    for n in columns.clone().step_by(LANES) {
        let rows = Rows { n, end: columns.end };
        let packed: [&[u8]; LANES] = from_fn(|r| w.packed_row(rows.row(r)));
        rows.scales_of_16(w, 0, x.segment, scales);
        let mut sums = [_mm512_setzero_ps(); M];
        for b in 0..blocks {
            add_block::<S, D, M>(x, b, packed, &scales[b * S * LANES..][..S * LANES], &mut sums);
        }
        for (y, sums) in y.iter_mut().zip(sums) {
            let y = &mut y[n - columns.start..][..LANES];
            // SAFETY: sixteen floats were just checked.
            unsafe { _mm512_storeu_ps(y.as_mut_ptr(), sums) };
        }
    }
    let dtype = out.dtype();
    for (m, parts) in y[..x.rows].chunks_mut(x.parts).enumerate() {
        add_parts(parts.as_flattened_mut(), MAX_STRIPE);
        from_f32(dtype, &parts[0][..columns.len()], out.row_mut(m));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")]
fn add_block<const S: usize, const D: usize, const M: usize>(
    x: &QuantizedRows,
    b: usize,
    packed: [&[u8]; LANES],
    scales: &[f32],
    sums: &mut [__m512; M],
) {
    let blocks = x.stride / ACTIVATION_GROUP;
    let mut codes = [[_mm512_setzero_si512(); 2]; M];
    for (m, codes) in codes.iter_mut().enumerate() {
        let row = &x.codes[m.min(x.rows - 1) * x.stride + 128 * b..][..128];
        // SAFETY: 128 bytes were just checked.
        unsafe {
            *codes =
                [_mm512_loadu_si512(row.as_ptr().cast()), _mm512_loadu_si512(row.as_ptr().add(64).cast())];
        }
    }
    let mut quads = [[[_mm512_setzero_si512(); 4]; D]; M];
    let bytes = packed[0].len();
    let ahead = if BLOCK * b + AHEAD < bytes { AHEAD } else { AHEAD + (LANES - 1) * bytes };
    for quad in 0..4 {
        let mut w = [[_mm512_setzero_si512(); 2]; 4];
        for (w, row) in w.iter_mut().zip(&packed[4 * quad..]) {
            let mut padded = [0; BLOCK];
            let packed = block_ahead(row, b, ahead, &mut padded);
            *w = [unpack_64(packed, 0), unpack_64(packed, 1)];
        }
        for (quads, codes) in quads.iter_mut().zip(codes) {
            for (d, quads) in quads.iter_mut().enumerate() {
                let mut dots = [_mm512_setzero_si512(); 4];
                for (dot, w) in dots.iter_mut().zip(w) {
                    *dot = dot_part::<D>(w, codes, d);
                }
                quads[quad] = sum_lanes(dots);
            }
        }
    }
    let mut totals = [[_mm512_setzero_si512(); S]; M];
    for (totals, quads) in totals.iter_mut().zip(quads) {
        *totals = segments::<S, D>(quads);
    }
    for s in 0..S {
        let scales = &scales[s * LANES..][..LANES];
        // SAFETY: sixteen floats were just checked.
        let w_scales = unsafe { _mm512_loadu_ps(scales.as_ptr()) };
        for (m, (sums, totals)) in sums.iter_mut().zip(totals).enumerate() {
            let at = m.min(x.rows - 1) * blocks + b;
            let dot =
                _mm512_cvtepi32_ps(_mm512_add_epi32(totals[s], _mm512_set1_epi32(x.offsets[at * S + s])));
            let scale = _mm512_mul_ps(_mm512_set1_ps(x.scales[at]), w_scales);
            *sums = _mm512_add_ps(*sums, _mm512_mul_ps(scale, dot));
        }
    }
}

/// The sums of every segment of sixteen rows. Where vectors hold four segments each, those
/// are their quarters.
#[inline]
#[target_feature(enable = "avx512f")]
fn segments<const S: usize, const D: usize>(quads: [[__m512i; 4]; D]) -> [__m512i; S] {
    let mut sums = [_mm512_setzero_si512(); S];
    if S == 4 * D {
        for (sums, quads) in sums.chunks_exact_mut(4).zip(quads) {
            sums.copy_from_slice(&transpose_quarters(quads));
        }
    } else {
        for (sum, quads) in sums.iter_mut().zip(quads) {
            *sum = sum_quarters(quads);
        }
    }
    sums
}

/// Products of part `i` of `D` of a block, in sixteen partial sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot_part<const D: usize>(w: [__m512i; 2], x: [__m512i; 2], i: usize) -> __m512i {
    let zero = _mm512_setzero_si512();
    match D {
        1 => _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, w[0], x[0]), w[1], x[1]),
        2 => _mm512_dpbusd_epi32(zero, w[i], x[i]),
        _ => {
            let half = if i.is_multiple_of(2) { 0x00ff } else { 0xff00 };
            _mm512_maskz_dpbusd_epi32(half, zero, w[i / 2], x[i / 2])
        }
    }
}

/// Four vectors to one: every quarter of it holds a partial sum of each.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum_lanes([a, b, c, d]: [__m512i; 4]) -> __m512i {
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
}

/// The sum of the quarters of each of four vectors, one after the other.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum_quarters([a, b, c, d]: [__m512i; 4]) -> __m512i {
    let ab = halve(a, b);
    let cd = halve(c, d);
    halve(ab, cd)
}

/// The first quarters of four vectors, the second, the third and the fourth.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_quarters([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab, cd) = (_mm512_shuffle_i32x4::<0b01_00_01_00>(a, b), _mm512_shuffle_i32x4::<0b01_00_01_00>(c, d));
    let (ab2, cd2) =
        (_mm512_shuffle_i32x4::<0b11_10_11_10>(a, b), _mm512_shuffle_i32x4::<0b11_10_11_10>(c, d));
    [
        _mm512_shuffle_i32x4::<0b10_00_10_00>(ab, cd),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(ab, cd),
        _mm512_shuffle_i32x4::<0b10_00_10_00>(ab2, cd2),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(ab2, cd2),
    ]
}

/// Sums of neighbouring quarters of two vectors.
#[inline]
#[target_feature(enable = "avx512f")]
fn halve(a: __m512i, b: __m512i) -> __m512i {
    _mm512_add_epi32(_mm512_shuffle_i32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b))
}
