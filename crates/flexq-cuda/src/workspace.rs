//! Memory that a product may use for itself, and where what is in it.

use crate::config::{Activations, Problem};
use crate::device::Device;
use crate::error::Result;
use crate::launch::activations::{Quantize, quantize};
use crate::launch::{address, size, trigger_late};
use crate::order;
use crate::product::{Matrix, Precision};

/// Bytes at the start of a workspace that must be zero before its first use, and are zero again
/// after every product: counters of finished blocks.
pub const COUNTER_BYTES: u64 = 1 << 18;
/// The last counter: which worker comes next. Kernels draw it before earlier ones have ended, so others
/// never touch it.
pub(crate) const TICKET: u64 = COUNTER_BYTES - 4;

/// Where things are in the workspace, after the counters.
pub(crate) struct Plan {
    /// Quantized activations, if any, and their scales.
    pub codes: u64,
    pub scales: u64,
    pub scale_stride: usize,
    pub partial: u64,
    pub end: u64,
}

impl Plan {
    pub fn new(p: &Problem, partial_bytes: u64) -> Self {
        let up = |bytes: u64| bytes.next_multiple_of(256);
        let (_, k_pad) = order::padded(p.n, p.k);
        let scale_stride = p.m.next_multiple_of(4);
        let (code_bytes, scale_bytes, scale_stride) = match p.activations {
            // tiles read scales past the last row
            Activations::Int8 { per_row: true } => (p.m * k_pad, (scale_stride + 256) * 4, 0),
            Activations::Int8 { per_row: false } => {
                (p.m * k_pad, k_pad / 128 * scale_stride * 4, scale_stride)
            }
            _ => (0, 0, 0),
        };
        let codes = COUNTER_BYTES;
        let scales = codes + up(code_bytes as u64);
        let partial = scales + up(scale_bytes as u64);
        Self { codes, scales, scale_stride, partial, end: partial + up(partial_bytes) }
    }

    /// Quantizes activations into the workspace at `base`: addresses of codes, rows of whole blocks of 128
    /// one after another, and of scales.
    ///
    /// # Safety
    /// As for [`crate::linear::linear`]; the workspace has room for this plan.
    pub unsafe fn quantize(
        &self,
        device: &Device,
        stream: u64,
        x: &Matrix,
        p: &Problem,
        precision: Precision,
        base: u64,
    ) -> Result<(u64, u64)> {
        let (codes, scales) = (base + self.codes, base + self.scales);
        let arguments = Quantize {
            x: address("activations", x.address, 2)?,
            q: codes,
            scales,
            m: size("M", p.m)?,
            k: size("K", p.k)?,
            x_stride: size("row stride", x.stride)?,
            per_row: i32::from(precision.per_row),
            late: trigger_late(),
            limit: precision.bits.limit().unwrap_or_default(),
            x_type: x.dtype as i32,
        };
        // SAFETY: the caller's promise.
        unsafe { quantize(device, stream, &arguments)? };
        Ok((codes, scales))
    }
}
