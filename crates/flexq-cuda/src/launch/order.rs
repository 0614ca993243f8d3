//! `kernels/order.cu`.

use super::{Shape, launch};
use crate::device::Device;
use crate::error::Result;

#[repr(C)]
pub struct Repack {
    pub packed: u64,
    pub weights: u64,
    pub row_bytes: u64,
    pub n: i32,
    pub k: i32,
}

#[repr(C)]
pub struct RepackScales {
    pub scales: u64,
    pub out: u64,
    pub n: i32,
    pub k: i32,
    pub groups: i32,
    pub group: i32,
    pub segment: i32,
}

#[repr(C)]
pub struct Restore {
    pub weights: u64,
    pub scales: u64,
    pub packed: u64,
    pub out_scales: u64,
    pub row_bytes: u64,
    pub n: i32,
    pub k: i32,
    pub groups: i32,
    pub group: i32,
    pub segment: i32,
}

#[repr(C)]
pub struct Dequantize {
    pub weights: u64,
    pub scales: u64,
    pub y: u64,
    pub n: i32,
    pub k: i32,
    pub segment: i32,
    pub scale_type: i32,
    pub y_type: i32,
}

#[repr(C)]
pub struct Gather {
    pub weights: u64,
    pub scales: u64,
    pub rows: u64,
    pub y: u64,
    pub n: i32,
    pub k: i32,
    pub segment: i32,
    pub count: i32,
    pub scale_type: i32,
    pub y_type: i32,
}

/// An argument structure and its kernel.
pub trait Arguments {
    const KERNEL: &'static str;
}

macro_rules! arguments {
    ($($name:ident: $kernel:literal),*) => {$(
        impl Arguments for $name {
            const KERNEL: &'static str = $kernel;
        }
    )*};
}

arguments! {
    Repack: "flexq_repack",
    RepackScales: "flexq_repack_scales",
    Restore: "flexq_restore",
    Dequantize: "flexq_dequantize",
    Gather: "flexq_gather"
}

/// Runs one of these kernels with `grid` blocks of 256 threads.
///
/// # Safety
/// As for [`launch`].
pub unsafe fn run<A: Arguments>(device: &Device, grid: u32, stream: u64, arguments: &A) -> Result<()> {
    let kernel = device.kernel("order", A::KERNEL)?;
    let shape = Shape { grid, threads: 256, shared_bytes: 0, cluster: 1 };
    // SAFETY: `A` belongs to the kernel by its trait; memory is the caller's promise.
    unsafe { launch(device, kernel, &shape, stream, arguments) }
}
