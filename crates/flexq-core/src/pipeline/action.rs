//! What happens to a chunk of rows between reading and writing.

use std::mem;

use super::queue::Buffers;
use crate::backend::Cpu;
use crate::dtype::FloatType;
use crate::error::{Error, Result};
use crate::quantize::{pack_codes, quantize_rows};
use crate::rows::{FloatRows, FloatRowsMut};
use crate::scheme::{ScaleType, Scheme};

/// What turns the rows of a task's inputs into the rows of its outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Input 0 is output 0.
    Copy,
    /// Floats (input 0) become codes (output 0) and scales (output 1).
    Quantize {
        /// Type of the floats.
        dtype: FloatType,
        /// Floats in a row.
        columns: usize,
        /// How.
        scheme: Scheme,
    },
    /// Codes (input 0) and scales (input 1) become floats (output 0).
    Dequantize {
        /// Type of the floats.
        dtype: FloatType,
        /// Floats in a row.
        columns: usize,
        /// How they were quantized.
        scheme: Scheme,
    },
    /// Signed bytes (input 0) become packed codes (output 0).
    PackCodes {
        /// Codes in a row.
        columns: usize,
    },
    /// Packed rows get another length: zeros are added, or what is cut off is zero.
    Repitch {
        /// Codes in a row, whose bits are kept.
        columns: usize,
    },
    /// Scales in F32 (input 0) become 16-bit ones of the same value (output 0).
    Narrow(ScaleType),
    /// These bytes, without any input, are output 0.
    Constant(Vec<u8>),
}

impl Action {
    /// Fills the outputs, whose sizes are right already, from the inputs.
    pub(super) fn apply(&self, rows: usize, buffers: &mut Buffers) -> Result<()> {
        let Buffers { inputs, outputs } = buffers;
        match self {
            Self::Copy => mem::swap(&mut inputs[0], &mut outputs[0]),
            &Self::Quantize { dtype, columns, scheme } => {
                let source = FloatRows::new(&inputs[0], dtype, rows, columns)?;
                let [packed, scales] = outputs;
                quantize_rows(&source, &scheme, packed, scales)?;
            }
            &Self::Dequantize { dtype, columns, scheme } => {
                let [packed, scales] = inputs;
                let mut floats = FloatRowsMut::new(&mut outputs[0], dtype, rows, columns)?;
                Cpu::default().dequantize_bytes(&scheme, packed, scales, &mut floats)?;
            }
            &Self::PackCodes { columns } => pack_codes(&signed(&inputs[0]), rows, columns, &mut outputs[0])?,
            &Self::Repitch { columns } => repitch(rows, columns, &inputs[0], &mut outputs[0])?,
            &Self::Narrow(scale_type) => narrow(scale_type, &inputs[0], &mut outputs[0])?,
            Self::Constant(bytes) => outputs[0].copy_from_slice(bytes),
        }
        Ok(())
    }
}

fn signed(bytes: &[u8]) -> Vec<i8> {
    bytes.iter().map(|&byte| byte.cast_signed()).collect()
}

/// Copies rows of `columns` codes from rows of one length into rows of another.
fn repitch(rows: usize, columns: usize, from: &[u8], to: &mut [u8]) -> Result<()> {
    if rows == 0 || from.is_empty() || to.is_empty() {
        return Ok(());
    }
    let used = crate::layout::packed_row_bytes(columns);
    for (from, to) in from.chunks(from.len() / rows).zip(to.chunks_mut(to.len() / rows)) {
        if from.iter().skip(used).any(|&byte| byte != 0) {
            return Err(Error::unknown("padding after the codes of a row", "bits that are set", "zeros"));
        }
        to.fill(0);
        to[..used].copy_from_slice(&from[..used]);
    }
    Ok(())
}

/// Rounds nothing: a scale without equal in 16 bits is an error.
fn narrow(scale_type: ScaleType, from: &[u8], to: &mut [u8]) -> Result<()> {
    for (&from, to) in from.as_chunks::<4>().0.iter().zip(to.as_chunks_mut::<2>().0) {
        let scale = f32::from_le_bytes(from);
        let bits = scale_type.to_bits(scale);
        if scale_type.from_bits(bits).to_bits() != scale.to_bits() {
            let expected = "scales that are exact in 16 bits (F16 or BF16)";
            return Err(Error::unknown("F32 scale", scale, expected));
        }
        *to = bits.to_le_bytes();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Action, Buffers, ScaleType};

    fn apply(action: &Action, rows: usize, input: &[u8], output: usize) -> Option<Vec<u8>> {
        let mut buffers = Buffers { inputs: [input.to_vec(), vec![]], outputs: [vec![0xAA; output], vec![]] };
        action.apply(rows, &mut buffers).ok()?;
        Some(buffers.outputs[0].clone())
    }

    #[test]
    fn rows_get_longer_and_shorter_but_lose_nothing() {
        let repitch = Action::Repitch { columns: 2 };
        assert_eq!(apply(&repitch, 2, &[1, 2, 3, 4], 8), Some(vec![1, 2, 0, 0, 3, 4, 0, 0]));
        assert_eq!(apply(&repitch, 2, &[1, 2, 0, 0, 3, 4, 0, 0], 4), Some(vec![1, 2, 3, 4]));
        assert_eq!(apply(&repitch, 2, &[1, 2, 0, 0, 3, 4, 0, 1], 4), None);
    }

    #[test]
    fn scales_narrow_only_exactly() {
        let bytes = |scale: f32| scale.to_le_bytes();
        let f16 = Action::Narrow(ScaleType::F16);
        assert_eq!(apply(&f16, 1, &bytes(-0.5), 2), Some(0xB800u16.to_le_bytes().to_vec()));
        assert_eq!(apply(&f16, 1, &bytes(0.1), 2), None);
        assert_eq!(apply(&f16, 1, &bytes(1e9), 2), None);
        assert!(apply(&Action::Narrow(ScaleType::BF16), 1, &bytes(2.0f32.powi(100)), 2).is_some());
    }

    #[test]
    fn codes_out_of_range_are_refused() {
        let pack = Action::PackCodes { columns: 4 };
        assert_eq!(apply(&pack, 1, &[0xE0, 0, 1, 31], 3), Some(vec![0x00, 0x18, 0xFE]));
        assert_eq!(apply(&pack, 1, &[32, 0, 0, 0], 3), None);
    }
}
