//! `kernels/activations_*.cu`.

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

impl Quantize {
    /// Source and kernel, and how many blocks of threads: rows that fit keep their columns in registers.
    fn kernel(&self) -> Result<(&'static str, &'static str, u32)> {
        // whole pieces of 16 columns at multiples of 16 bytes
        let aligned = self.x.is_multiple_of(16) && self.x_stride % 8 == 0 && self.k % 16 == 0;
        if self.per_row == 0 {
            let items = self.m as u64 * (self.k as u64).div_ceil(128);
            let name = if aligned { "flexq_quantize_blocks" } else { "flexq_quantize_blocks_unaligned" };
            return Ok(("activations_blocks", name, blocks("activations", items, ITEMS)?));
        }
        let (source, name) = match self.k {
            ..=4096 if aligned => ("activations_rows", "flexq_quantize_rows_4096"),
            ..=8192 if aligned => ("activations_rows", "flexq_quantize_rows_8192"),
            ..=16384 if aligned => ("activations_long", "flexq_quantize_rows_16384"),
            ..=28672 if aligned => ("activations_long", "flexq_quantize_rows_28672"),
            ..=32768 if aligned => ("activations_any", "flexq_quantize_rows_32768"),
            _ => ("activations_any", "flexq_quantize_rows"),
        };
        Ok((source, name, self.m as u32))
    }
}

/// # Safety
/// As for [`launch`].
pub unsafe fn quantize(device: &Device, stream: u64, arguments: &Quantize) -> Result<()> {
    let (source, name, grid) = arguments.kernel()?;
    let kernel = device.kernel(source, name)?;
    let shape = Shape { grid, threads: 256, shared_bytes: 0, cluster: 1 };
    // SAFETY: this is the kernel's structure; memory is the caller's promise.
    unsafe { launch(device, kernel, &shape, stream, arguments) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Source;

    #[test]
    fn rows_that_fit_stay_in_registers() {
        let name = |x, k, x_stride, per_row| {
            let (q, scales, m) = (256, 256, 3);
            let a = Quantize { x, q, scales, m, k, x_stride, per_row, late: 0, limit: 127.0, x_type: 0 };
            let (source, name, grid) = a.kernel().unwrap();
            for capability in [(8, 0), (9, 0)] {
                let text = Source::named(source).unwrap().ptx(capability).unwrap();
                assert!(String::from_utf8(text).unwrap().contains(&format!(".entry {name}(")));
            }
            (name, grid)
        };
        assert_eq!(name(256, 4096, 4096, 1), ("flexq_quantize_rows_4096", 3));
        assert_eq!(name(256, 5120, 5120, 1), ("flexq_quantize_rows_8192", 3));
        assert_eq!(name(256, 14336, 14336, 1), ("flexq_quantize_rows_16384", 3));
        assert_eq!(name(256, 28672, 28672, 1), ("flexq_quantize_rows_28672", 3));
        assert_eq!(name(256, 29568, 29568, 1), ("flexq_quantize_rows_32768", 3));
        assert_eq!(name(256, 32784, 32784, 1), ("flexq_quantize_rows", 3));
        // rows that do not start, or end, where a lane's sixteen columns do
        assert_eq!(name(256, 4096, 4100, 1), ("flexq_quantize_rows", 3));
        assert_eq!(name(258, 4096, 4096, 1), ("flexq_quantize_rows", 3));
        assert_eq!(name(256, 1288, 1288, 1), ("flexq_quantize_rows", 3));
        // 96 blocks of columns, 64 a block of threads
        assert_eq!(name(256, 4096, 4096, 0), ("flexq_quantize_blocks", 2));
        assert_eq!(name(256, 1288, 1288, 0), ("flexq_quantize_blocks_unaligned", 1));
    }
}
