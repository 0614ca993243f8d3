//! `kernels/tile_*.cu`.

use super::{Shape, launch};
use crate::config::{Activations, Tile};
use crate::device::Device;
use crate::error::Result;

#[repr(C)]
pub struct Arguments {
    pub weights: u64,
    pub scales: u64,
    pub x: u64,
    pub x_scales: u64,
    pub bias: u64,
    pub y: u64,
    pub partial: u64,
    pub arrivals: u64,
    pub ends: u64,
    pub weights_stride: u64,
    pub scales_stride: u64,
    pub m: i32,
    pub n: i32,
    pub k: i32,
    pub x_stride: i32,
    pub x_scale_stride: i32,
    pub splits: i32,
    pub split_blocks: i32,
    pub scale_type: i32,
    pub bias_type: i32,
    pub y_type: i32,
}

/// Source and kernel for a launch, dense or grouped by expert.
pub fn names(grouped: bool, activations: Activations, segment: usize) -> (&'static str, String) {
    let source = match activations {
        Activations::F16 => "tile_f16",
        Activations::BF16 => "tile_bf16",
        Activations::Int8 { .. } => "tile_s8",
    };
    let family = if grouped { "grouped" } else { "tile" };
    (source, format!("flexq_{family}_{}_g{segment}_m{}", activations.name(), Tile::ROWS))
}

/// # Safety
/// As for [`launch`]; a grid for experts where `arguments.ends` is not null.
pub unsafe fn run(
    device: &Device,
    stream: u64,
    grid: u32,
    activations: Activations,
    segment: usize,
    arguments: &Arguments,
) -> Result<()> {
    let (source, name) = names(arguments.ends != 0, activations, segment);
    let kernel = device.kernel(source, &name)?;
    let shared_bytes = Tile::shared_bytes(activations, segment);
    let shape = Shape { grid, threads: 256, shared_bytes, cluster: 1 };
    // SAFETY: this is the kernel's structure; memory is the caller's promise.
    unsafe { launch(device, kernel, &shape, stream, arguments) }
}
