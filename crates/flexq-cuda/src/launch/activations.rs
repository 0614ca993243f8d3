//! `kernels/activations.cu`.

use super::{Shape, blocks, launch};
use crate::device::Device;
use crate::error::Result;

#[repr(C)]
pub struct Quantize {
    pub x: u64,
    pub q: u64,
    pub scales: u64,
    pub m: i32,
    pub k: i32,
    pub x_stride: i32,
    pub per_row: i32,
    pub late: i32,
    pub limit: f32,
    pub x_type: i32,
}

/// Blocks of 128 columns a block of threads quantizes, eight lanes each, two at a time.
const ITEMS: u64 = 256 / 8 * 2;

/// # Safety
/// As for [`launch`].
pub unsafe fn quantize(device: &Device, stream: u64, arguments: &Quantize) -> Result<()> {
    let kernel = device.kernel("activations", "flexq_quantize_activations")?;
    let items = arguments.m as u64 * (arguments.k as u64).div_ceil(128);
    let grid = if arguments.per_row == 0 { blocks("activations", items, ITEMS)? } else { arguments.m as u32 };
    let shape = Shape { grid, threads: 256, shared_bytes: 0, cluster: 1 };
    // SAFETY: this is the kernel's structure; memory is the caller's promise.
    unsafe { launch(device, kernel, &shape, stream, arguments) }
}
