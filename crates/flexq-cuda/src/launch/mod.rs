//! Launches: the arguments of each kernel family in their C layout, and the one call that
//! hands them to the driver.

pub mod activations;
pub mod hopper;
pub mod order;
pub mod small;
pub mod tile;

use std::ffi::c_void;

use crate::device::{Device, Kernel};
use crate::driver::{LaunchAttribute, LaunchConfig, Stream};
use crate::error::{Error, Result};

/// Grid, block and shared memory of a launch.
pub struct Shape {
    pub grid: u32,
    pub threads: u32,
    pub shared_bytes: u32,
    /// Blocks of a cluster; 1 for none.
    pub cluster: u32,
}

/// Launches `kernel` on `stream` with one argument structure.
///
/// # Safety
/// `A` is the structure the kernel takes, and the memory its addresses name is valid, and of the
/// sizes it implies, until the work on `stream` is done.
pub unsafe fn launch<A>(
    device: &Device,
    kernel: Kernel,
    shape: &Shape,
    stream: u64,
    arguments: &A,
) -> Result<()> {
    if shape.grid == 0 {
        return Ok(());
    }
    let mut attributes = Vec::with_capacity(2);
    if kernel.dependent {
        attributes.push(LaunchAttribute::dependent_launch());
    }
    if shape.cluster > 1 {
        attributes.push(LaunchAttribute::cluster(shape.cluster));
    }
    let config = LaunchConfig {
        grid: [shape.grid, 1, 1],
        block: [shape.threads, 1, 1],
        shared_bytes: shape.shared_bytes,
        stream: Stream(stream as *mut c_void),
        attributes: attributes.as_ptr(),
        attribute_count: attributes.len() as u32,
    };
    let mut parameters = [std::ptr::from_ref(arguments).cast_mut().cast::<c_void>()];
    device.with(|driver| {
        // SAFETY: the driver copies the argument structure, which has the kernel's layout.
        let status = unsafe {
            (driver.launch)(&raw const config, kernel.function, parameters.as_mut_ptr(), std::ptr::null_mut())
        };
        driver.check("cuLaunchKernelEx", status)
    })
}

/// Refuses null and misaligned addresses.
pub fn address(what: &'static str, address: u64, needed: u64) -> Result<u64> {
    match address {
        0 => Err(Error::Null { what }),
        _ if !address.is_multiple_of(needed) => Err(Error::Alignment { what, address, needed }),
        _ => Ok(address),
    }
}

/// A size as the kernels count: below 2^31.
pub fn size(what: &'static str, size: usize) -> Result<i32> {
    i32::try_from(size).map_err(|_| Error::Size {
        what,
        expected: "less than 2^31".to_owned(),
        found: size as u64,
    })
}

/// Blocks of `threads` threads for `items` items.
pub fn blocks(what: &'static str, items: u64, threads: u64) -> Result<u32> {
    let blocks = items.div_ceil(threads);
    u32::try_from(blocks).ok().filter(|&blocks| blocks < 1 << 31).ok_or(Error::Size {
        what,
        expected: "fewer blocks than 2^31".to_owned(),
        found: blocks,
    })
}
