//! `kernels/sm90_*.cu`.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::driver::sys::{
    self, CUtensorMapDataType, CUtensorMapFloatOOBfill, CUtensorMapInterleave, CUtensorMapL2promotion,
    CUtensorMapSwizzle,
};

use super::{Shape, launch};
use crate::config::{Activations, Hopper};
use crate::device::Device;
use crate::error::Result;
use crate::kernels::Source;
use crate::types::{Dtype, ScaleType};

#[repr(C, align(64))]
pub struct TensorMap(pub [u64; 16]);

#[repr(C, align(64))]
pub struct Arguments {
    pub x: TensorMap,
    pub weights: u64,
    pub scales: u64,
    pub x_scales: u64,
    pub bias: u64,
    pub y: u64,
    pub partial: u64,
    pub arrivals: u64,
    pub ticket: u64,
    pub m: i32,
    pub n: i32,
    pub k: i32,
    pub split_tiles: i32,
    pub sharers: i32,
    pub share: i32,
    pub extra: i32,
    pub splits: i32,
    pub raster: i32,
    pub late: i32,
    pub scale_type: i32,
    pub bias_type: i32,
    pub y_type: i32,
}

/// The activations as Hopper's copy engine sees them: `[m, k]` with rows `stride` elements apart,
/// fetched in boxes of 128 bytes by `rows` rows, swizzled by 128 bytes, zeros past the edges.
pub fn tensor_map(
    device: &Device,
    activations: Activations,
    x: u64,
    (m, k, stride): (usize, usize, usize),
    rows: u32,
) -> Result<TensorMap> {
    let (kind, element) = match activations {
        Activations::Int8 { .. } => (CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT8, 1),
        Activations::F16 => (CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2),
        Activations::BF16 => (CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2),
    };
    let mut map = TensorMap([0; 16]);
    let sizes = [k as u64, m as u64];
    let strides = [(stride * element) as u64];
    let window = [128 / element as u32, rows];
    let steps = [1_u32, 1];
    device.with(|driver| {
        // SAFETY: the driver writes the map and reads the arrays during the call.
        let status = unsafe {
            sys::cuTensorMapEncodeTiled(
                (&raw mut map).cast(),
                kind,
                2,
                x as *mut c_void,
                sizes.as_ptr(),
                strides.as_ptr(),
                window.as_ptr(),
                steps.as_ptr(),
                CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        driver.check("cuTensorMapEncodeTiled", status)
    })?;
    Ok(map)
}

/// Whether sums are added without rounding more than f32 must.
static EXACT: AtomicBool = AtomicBool::new(false);

/// Chooses for launches from now on, of the whole process, whether sums that are scaled by one number a
/// row may be rounded `near` (`row_sums.cuh`), which is faster, or shall be `exact`, as those of other kernels are.
pub fn set_exact_sums(exact: bool) {
    EXACT.store(exact, Ordering::Relaxed);
}

/// Whether sums may be rounded near: what that costs shows in output of 32 bits only, and larger scales
/// than those of half precision would be infinite.
fn rounds_near(scale_type: i32, y_type: i32) -> bool {
    !EXACT.load(Ordering::Relaxed) && scale_type == ScaleType::F16 as i32 && y_type != Dtype::F32 as i32
}

/// Source and kernel for a launch.
pub fn names(config: &Hopper, activations: Activations, near: bool) -> (&'static str, String) {
    let kind = match activations {
        Activations::Int8 { per_row: true } if near && config.rows == 256 => "s8r_near",
        Activations::F16 => "f16",
        Activations::BF16 => "bf16",
        Activations::Int8 { per_row: true } => "s8r",
        Activations::Int8 { per_row: false } => "s8b",
    };
    let rows = config.rows;
    let wide = if config.groups == 3 { "n192_" } else { "" };
    let source = Source::named(&format!("sm90_{kind}_{wide}m{rows}")).map_or("", |source| source.name);
    (source, format!("flexq_sm90_{kind}_n{}_m{rows}", config.columns()))
}

/// # Safety
/// As for [`launch`].
pub unsafe fn run(
    device: &Device,
    stream: u64,
    config: &Hopper,
    activations: Activations,
    arguments: &Arguments,
) -> Result<()> {
    let near = rounds_near(arguments.scale_type, arguments.y_type);
    let (source, name) = names(config, activations, near);
    let kernel = device.kernel(source, &name)?;
    let shape = Shape {
        grid: config.grid,
        threads: config.threads(),
        shared_bytes: config.shared_bytes,
        cluster: config.cluster * config.splits,
    };
    // SAFETY: this is the kernel's structure; memory is the caller's promise.
    unsafe { launch(device, kernel, &shape, stream, arguments) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Arch, Config, Problem};

    #[test]
    fn every_launch_has_a_kernel() {
        let arch = Arch { capability: (9, 0), multiprocessors: 132, shared_bytes: 232_448 };
        let int8 = |per_row| Activations::Int8 { per_row };
        for activations in [Activations::F16, Activations::BF16, int8(false), int8(true)] {
            let mut found = 0;
            for (rows, columns) in [
                (32, 128),
                (32, 192),
                (64, 128),
                (64, 192),
                (128, 128),
                (128, 192),
                (176, 128),
                (192, 128),
                (256, 128),
                (256, 256),
            ] {
                let p = Problem { arch, m: 300, n: 4096, k: 4096, activations, segment: 128, aligned: true };
                let request = format!("hopper rows={rows} columns={columns}");
                let Ok(Config::Hopper(config)) = Config::requested(&request, &p) else { continue };
                for near in [false, true] {
                    let (source, name) = names(&config, activations, near);
                    let text = Source::named(source).unwrap().ptx((9, 0)).unwrap();
                    assert!(
                        String::from_utf8(text).unwrap().contains(&format!(".entry {name}(")),
                        "{source} {name}"
                    );
                    assert_eq!(name.contains("near"), near && rows == 256 && activations == int8(true));
                }
                found += 1;
            }
            assert_eq!(found, if matches!(activations, Activations::Int8 { .. }) { 6 } else { 10 });
        }
    }

    #[test]
    fn only_output_of_16_bits_is_rounded_near() {
        let near = |scale: ScaleType, y: Dtype| rounds_near(scale as i32, y as i32);
        assert!(near(ScaleType::F16, Dtype::F16) && near(ScaleType::F16, Dtype::BF16));
        assert!(!near(ScaleType::F16, Dtype::F32));
        assert!(!near(ScaleType::BF16, Dtype::F16) && !near(ScaleType::BF16, Dtype::F32));
        set_exact_sums(true);
        assert!(!near(ScaleType::F16, Dtype::F16) && !near(ScaleType::F16, Dtype::BF16));
        set_exact_sums(false);
        assert!(near(ScaleType::F16, Dtype::F16));
    }
}
