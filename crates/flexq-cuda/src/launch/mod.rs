//! Launches: the arguments of each kernel family in their C layout, and the one call that
//! hands them to the driver.

pub mod activations;
pub mod hopper;
pub mod order;
pub mod small;
pub mod small_grouped;
pub mod tile;

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::driver::sys::{
    self, CUlaunchAttribute, CUlaunchAttributeID, CUlaunchAttributeValue,
    CUlaunchAttributeValue_union__bindgen_ty_1 as ClusterDim, CUlaunchConfig,
};

use crate::device::{Device, Kernel};
use crate::error::{Error, Result};

/// Grid, block and shared memory of a launch.
pub struct Shape {
    pub grid: u32,
    pub threads: u32,
    pub shared_bytes: u32,
    /// Blocks of a cluster; 1 for none.
    pub cluster: u32,
}

/// The kernel may start before the one ahead of it in the stream has finished.
const DEPENDENT_LAUNCH: CUlaunchAttribute = CUlaunchAttribute {
    id: CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
    pad: [0; 4],
    value: CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
};

/// Whether kernels let the next one start only when they have waited for those before.
static LATE: AtomicBool = AtomicBool::new(false);

/// Chooses when launches from now on, of the whole process, let the next kernel of their stream start:
/// at once, or `late`, when they have waited for the kernels before them. Kernels here wait
/// for all that came before and need no more; others may not: Inductor's with dependent launch count
/// on it that a kernel has waited once the next one starts.
pub fn set_trigger_late(late: bool) {
    LATE.store(late, Ordering::Relaxed);
}

/// The choice, as kernels take it.
pub(crate) fn trigger_late() -> i32 {
    LATE.load(Ordering::Relaxed).into()
}

/// Blocks of a cluster.
fn cluster(blocks: u32) -> CUlaunchAttribute {
    CUlaunchAttribute {
        id: CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
        pad: [0; 4],
        value: CUlaunchAttributeValue { clusterDim: ClusterDim { x: blocks, y: 1, z: 1 } },
    }
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
    let mut attributes = [DEPENDENT_LAUNCH; 2];
    let mut count = usize::from(kernel.dependent);
    if shape.cluster > 1 {
        attributes[count] = cluster(shape.cluster);
        count += 1;
    }
    let config = CUlaunchConfig {
        gridDimX: shape.grid,
        gridDimY: 1,
        gridDimZ: 1,
        blockDimX: shape.threads,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: shape.shared_bytes,
        hStream: stream as sys::CUstream,
        attrs: attributes.as_mut_ptr(),
        numAttrs: count as u32,
    };
    let mut parameters = [std::ptr::from_ref(arguments).cast_mut().cast::<c_void>()];
    device.with(|driver| {
        // SAFETY: the driver copies the argument structure, which has the kernel's layout.
        let status = unsafe {
            sys::cuLaunchKernelEx(
                &raw const config,
                kernel.function.0,
                parameters.as_mut_ptr(),
                std::ptr::null_mut(),
            )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_take_the_last_choice() {
        assert_eq!(trigger_late(), 0);
        set_trigger_late(true);
        assert_eq!(trigger_late(), 1);
        set_trigger_late(false);
        assert_eq!(trigger_late(), 0);
    }
}
