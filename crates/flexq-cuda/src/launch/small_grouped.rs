//! `kernels/small_grouped_*.cu`.

use super::{Shape, launch, small};
use crate::config::{Activations, Grouped};
use crate::device::Device;
use crate::error::Result;

#[repr(C)]
pub struct Arguments {
    pub product: small::Arguments,
    pub ends: u64,
    pub weights_stride: u64,
    pub scales_stride: u64,
    pub experts: i32,
    pub blocks: i32,
}

/// Source and kernel for a launch.
pub fn names(activations: Activations, segment: usize) -> (&'static str, String) {
    let source = match activations {
        Activations::F16 => "small_grouped_f16",
        Activations::BF16 => "small_grouped_bf16",
        Activations::Int8 { .. } => "small_grouped_s8",
    };
    (source, format!("flexq_{source}_g{segment}"))
}

/// # Safety
/// As for [`launch`].
pub unsafe fn run(
    device: &Device,
    stream: u64,
    config: &Grouped,
    activations: Activations,
    segment: usize,
    arguments: &Arguments,
) -> Result<()> {
    let (source, name) = names(activations, segment);
    let kernel = device.kernel(source, &name)?;
    let shape = Shape {
        grid: config.small.grid * config.items,
        threads: config.small.warps * 32,
        shared_bytes: config.small.shared_bytes,
        cluster: config.small.cluster(),
    };
    // SAFETY: this is the kernel's structure; memory is the caller's promise.
    unsafe { launch(device, kernel, &shape, stream, arguments) }
}
