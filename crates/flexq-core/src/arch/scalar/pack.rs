//! Signed codes to the canonical 6-bit stream and back.

use super::super::{Out, Scratch};
use super::convert::from_f32;
use crate::dtype::FloatType;
use crate::scheme::{CODE_MIN, Scheme};

/// Packs `count` codes: four make three bytes, lowest bits first.
pub(in crate::arch) fn pack(packed: &mut [u8], count: usize, code: impl Fn(usize) -> i8) {
    let bits = |i: usize| if i < count { (i32::from(code(i)) - CODE_MIN) as u32 } else { 0 };
    for (j, bytes) in packed.chunks_mut(3).enumerate() {
        let word = bits(4 * j) | bits(4 * j + 1) << 6 | bits(4 * j + 2) << 12 | bits(4 * j + 3) << 18;
        bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
    }
}

pub(in crate::arch) fn pack_row(codes: &[i8], packed: &mut [u8]) {
    pack(packed, codes.len(), |i| codes[i]);
}

pub(in crate::arch) fn unpack_row(packed: &[u8], codes: &mut [i8]) {
    for (bytes, codes) in packed.chunks(3).zip(codes.chunks_mut(4)) {
        let byte = |i: usize| bytes.get(i).copied().map_or(0, u32::from);
        let word = byte(0) | byte(1) << 8 | byte(2) << 16;
        for (i, code) in codes.iter_mut().enumerate() {
            *code = ((word >> (6 * i) & 63) as i32 + CODE_MIN) as i8;
        }
    }
}

/// `f32(code) * f32(scale)`, rounded to `dtype`.
pub(in crate::arch) fn dequantize_row(
    scheme: &Scheme,
    packed: &[u8],
    scales: &[u8],
    dtype: FloatType,
    dst: &mut [u8],
    _: Out,
    scratch: &mut Scratch,
) {
    let columns = dst.len() / dtype.size();
    scratch.floats.resize(columns, 0.0);
    dequantize_to_f32(scheme, packed, scales, &mut scratch.floats);
    from_f32(dtype, &scratch.floats, dst);
}

/// `f32(code) * f32(scale)` of a row of `dst.len()` columns.
pub(in crate::arch) fn dequantize_to_f32(scheme: &Scheme, packed: &[u8], scales: &[u8], dst: &mut [f32]) {
    let width = scheme.scale_width(dst.len());
    let packed_groups = packed.chunks((width * 3).div_ceil(4));
    for (i, (dst, packed)) in dst.chunks_mut(width).zip(packed_groups).enumerate() {
        let scale = scheme.scale_type.from_bits(scheme.scale_type.scale_at(scales, i));
        for (bytes, dst) in packed.chunks(3).zip(dst.chunks_mut(4)) {
            let byte = |i: usize| bytes.get(i).copied().map_or(0, u32::from);
            let word = byte(0) | byte(1) << 8 | byte(2) << 16;
            for (i, dst) in dst.iter_mut().enumerate() {
                *dst = ((word >> (6 * i) & 63) as i32 + CODE_MIN) as f32 * scale;
            }
        }
    }
}
