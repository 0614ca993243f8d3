//! Little-endian floats to f32 and back.

use half::{bf16, f16};

use crate::dtype::FloatType;

/// `src` holds as many elements as `dst`.
pub(in crate::arch) fn to_f32(dtype: FloatType, src: &[u8], dst: &mut [f32]) {
    match dtype {
        FloatType::F32 => {
            for (x, bytes) in dst.iter_mut().zip(src.as_chunks().0) {
                *x = f32::from_le_bytes(*bytes);
            }
        }
        FloatType::F16 => {
            for (x, bytes) in dst.iter_mut().zip(src.as_chunks().0) {
                *x = f16::from_le_bytes(*bytes).to_f32();
            }
        }
        FloatType::BF16 => {
            for (x, bytes) in dst.iter_mut().zip(src.as_chunks().0) {
                *x = bf16::from_le_bytes(*bytes).to_f32();
            }
        }
    }
}

/// `dst` has room for as many elements as `src` holds.
pub(in crate::arch) fn from_f32(dtype: FloatType, src: &[f32], dst: &mut [u8]) {
    match dtype {
        FloatType::F32 => {
            for (&x, bytes) in src.iter().zip(dst.as_chunks_mut().0) {
                *bytes = x.to_le_bytes();
            }
        }
        FloatType::F16 => {
            for (&x, bytes) in src.iter().zip(dst.as_chunks_mut().0) {
                *bytes = f16::from_f32(x).to_le_bytes();
            }
        }
        FloatType::BF16 => {
            for (&x, bytes) in src.iter().zip(dst.as_chunks_mut().0) {
                *bytes = bf16::from_f32(x).to_le_bytes();
            }
        }
    }
}
