//! What happens to a chunk of rows between reading and writing.

use super::queue::Buffers;
use crate::dtype::FloatType;
use crate::error::Result;
use crate::quantize::quantize_rows;
use crate::rows::FloatRows;
use crate::scheme::Scheme;

/// What turns the rows of a task's inputs into the rows of its outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Input 0 is output 0.
    Copy,
    /// Floats become codes (output 0) and scales (output 1).
    Quantize {
        /// Type of the floats.
        dtype: FloatType,
        /// Floats in a row.
        columns: usize,
        /// How.
        scheme: Scheme,
    },
}

impl Action {
    /// Fills the outputs, whose sizes are right already, from the inputs.
    pub fn apply(self, rows: usize, buffers: &mut Buffers) -> Result<()> {
        let Buffers { inputs, outputs } = buffers;
        match self {
            Self::Copy => {
                std::mem::swap(&mut inputs[0], &mut outputs[0]);
                Ok(())
            }
            Self::Quantize { dtype, columns, scheme } => {
                let source = FloatRows::new(&inputs[0], dtype, rows, columns)?;
                let [packed, scales] = outputs;
                quantize_rows(&source, &scheme, packed, scales)
            }
        }
    }
}
