//! `kernels/small_*.cu`.

use super::{Shape, launch};
use crate::config::{Activations, Small};
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
    pub m: i32,
    pub n: i32,
    pub k: i32,
    pub x_stride: i32,
    pub x_scale_stride: i32,
    pub splits: i32,
    pub split_blocks: i32,
    pub strips: i32,
    pub longer: i32,
    pub stages: i32,
    pub per_row: i32,
    pub limit: f32,
    pub x_type: i32,
    pub scale_type: i32,
    pub bias_type: i32,
    pub y_type: i32,
}

/// Source and kernel for a launch.
pub fn names(config: &Small, activations: Activations, segment: usize) -> (&'static str, String) {
    let source = match (config.options.planes, activations, segment) {
        (true, ..) => "small_b1_g128",
        (_, Activations::F16, 32) => "small_f16_g32",
        (_, Activations::F16, 64) => "small_f16_g64",
        (_, Activations::F16, _) => "small_f16_g128",
        (_, Activations::BF16, 32) => "small_bf16_g32",
        (_, Activations::BF16, 64) => "small_bf16_g64",
        (_, Activations::BF16, _) => "small_bf16_g128",
        (_, Activations::Int8 { .. }, 32) => "small_s8_g32",
        (_, Activations::Int8 { .. }, 64) => "small_s8_g64",
        (_, Activations::Int8 { .. }, _) => "small_s8_g128",
    };
    (source, format!("flexq_{source}_m{}", config.rows))
}

/// # Safety
/// As for [`launch`].
pub unsafe fn run(
    device: &Device,
    stream: u64,
    config: &Small,
    activations: Activations,
    segment: usize,
    arguments: &Arguments,
) -> Result<()> {
    let (source, name) = names(config, activations, segment);
    let kernel = device.kernel(source, &name)?;
    let shape = Shape {
        grid: config.grid,
        threads: config.warps * 32,
        shared_bytes: config.shared_bytes,
        cluster: config.cluster(),
    };
    // SAFETY: this is the kernel's structure; memory is the caller's promise.
    unsafe { launch(device, kernel, &shape, stream, arguments) }
}
