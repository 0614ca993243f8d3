//! Owned memory of a GPU, for callers without another library that has some.

use std::sync::Arc;

use cudarc::driver::sys;

use crate::device::Device;
use crate::error::Result;

const DEFAULT_STREAM: sys::CUstream = std::ptr::null_mut();

/// Memory of a GPU, freed when dropped. Copies run on the default stream, number 0.
pub struct Buffer {
    device: Arc<Device>,
    address: u64,
    bytes: usize,
}

impl Buffer {
    /// Zeroed memory.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), or a failure of the driver.
    pub fn zeros(device: &Arc<Device>, bytes: usize) -> Result<Self> {
        let address = device.with(|driver| {
            let mut address = 0;
            // SAFETY: writes one address; the driver refuses a size of zero.
            let status = unsafe { sys::cuMemAlloc_v2(&raw mut address, bytes.max(1)) };
            driver.check_allocation(bytes, status)?;
            // SAFETY: the memory was just allocated with at least this size.
            let status = unsafe { sys::cuMemsetD8Async(address, 0, bytes.max(1), DEFAULT_STREAM) };
            driver.check("cuMemsetD8Async", status).map(|()| address)
        })?;
        Ok(Self { device: Arc::clone(device), address, bytes })
    }

    /// A copy of `bytes`.
    ///
    /// # Errors
    /// As for [`Buffer::zeros`].
    pub fn copy_of(device: &Arc<Device>, bytes: &[u8]) -> Result<Self> {
        let buffer = Self::zeros(device, bytes.len())?;
        buffer.device.with(|driver| {
            // SAFETY: both sides have this size; the call below waits for the copy.
            let status = unsafe {
                sys::cuMemcpyHtoDAsync_v2(buffer.address, bytes.as_ptr().cast(), bytes.len(), DEFAULT_STREAM)
            };
            driver.check("cuMemcpyHtoDAsync", status)
        })?;
        buffer.synchronize()?;
        Ok(buffer)
    }

    /// Copies the content to `out`, after all work on the default stream.
    ///
    /// # Errors
    /// A failure of the driver, of earlier work too.
    ///
    /// # Panics
    /// If `out` is longer than the buffer.
    pub fn copy_to(&self, out: &mut [u8]) -> Result<()> {
        assert!(out.len() <= self.bytes, "a buffer of {} bytes", self.bytes);
        self.device.with(|driver| {
            // SAFETY: the buffer is at least as long; the call below waits for the copy.
            let status = unsafe {
                sys::cuMemcpyDtoHAsync_v2(out.as_mut_ptr().cast(), self.address, out.len(), DEFAULT_STREAM)
            };
            driver.check("cuMemcpyDtoHAsync", status)
        })?;
        self.synchronize()
    }

    /// Waits for the default stream.
    ///
    /// # Errors
    /// A failure of earlier work.
    pub fn synchronize(&self) -> Result<()> {
        self.device.with(|driver| {
            // SAFETY: the default stream always exists.
            let status = unsafe { sys::cuStreamSynchronize(DEFAULT_STREAM) };
            driver.check("cuStreamSynchronize", status)
        })
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The GPU it lies on.
    #[must_use]
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Nobody could act on a failure here; the driver waits for work that uses the memory.
        let _ = self.device.with(|driver| {
            // SAFETY: the address came from the driver and is freed once.
            driver.check("cuMemFree", unsafe { sys::cuMemFree_v2(self.address) })
        });
    }
}
