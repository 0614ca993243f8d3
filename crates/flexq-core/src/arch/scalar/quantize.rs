//! A row of floats to packed codes and scales.

use super::super::{Fault, Out, Scratch};
use super::convert::to_f32;
use super::pack::pack;
use super::scale::scale_bits;
use crate::dtype::FloatType;
use crate::scheme::{CODE_MAX, CODE_MIN, ScaleType, Scheme};

pub(in crate::arch) fn quantize_row(
    scheme: &Scheme,
    dtype: FloatType,
    src: &[u8],
    packed: &mut [u8],
    scales: &mut [u8],
    _: Out,
    scratch: &mut Scratch,
) -> Result<(), Fault> {
    let columns = src.len() / dtype.size();
    let Scratch { floats, .. } = scratch;
    floats.resize(columns, 0.0);
    to_f32(dtype, src, floats);
    if scheme.scale_type == ScaleType::Pair {
        return super::pair::quantize_row(scheme, floats, packed, scales);
    }
    let width = scheme.group.width(columns);
    let packed_groups = packed.chunks_mut((width * 3).div_ceil(4));
    let stored = scales.as_chunks_mut().0;
    for (group, ((w, packed), scale)) in floats.chunks(width).zip(packed_groups).zip(stored).enumerate() {
        *scale = quantize_group(scheme, group, group * width, w, packed)?.to_le_bytes();
    }
    Ok(())
}

/// Packs the codes of one group and returns the stored bits of its scale. `group` and
/// `column` say where it lies, for errors.
fn quantize_group(
    scheme: &Scheme,
    group: usize,
    column: usize,
    w: &[f32],
    packed: &mut [u8],
) -> Result<u16, Fault> {
    if let Some(i) = w.iter().position(|w| !w.is_finite()) {
        return Err(Fault::NonFinite { column: column + i, value: w[i] });
    }
    let bits =
        scale_bits(scheme.rule, scheme.scale_type, w).map_err(|scale| Fault::Overflow { group, scale })?;
    let scale = scheme.scale_type.from_bits(bits);
    pack(packed, w.len(), |i| if bits == 0 { 0 } else { code(w[i], scale) });
    Ok(bits)
}

/// `clamp(rne(w / scale), -32, 31)`.
pub(in crate::arch) fn code(w: f32, scale: f32) -> i8 {
    (w / scale).round_ties_even().clamp(CODE_MIN as f32, CODE_MAX as f32) as i8
}
