//! The NVIDIA driver, looked at before anything in it is called.
//!
//! Calls go through the bindings of [`cudarc::driver::sys`], which open the library when first
//! used and panic where it, or a function, is missing. [`Driver::get`] therefore looks for the
//! library and for every function of [`FUNCTIONS`] first, and whoever holds a [`Driver`] may
//! call those. The bindings are those of the newest CUDA, since a status is an enumeration there
//! that must know every code a driver may answer; none of the functions is newer than CUDA 12.0.

use std::ffi::{CStr, c_char, c_int};
use std::sync::OnceLock;

use cudarc::driver::sys::{self, CUresult};

use crate::error::{Error, Result};

/// The least CUDA version of a driver: launches with attributes, PTX 8.0.
const NEEDED: (c_int, &str) = (12_000, "12.0");

/// What this crate calls.
const FUNCTIONS: [&str; 23] = [
    "cuCtxPopCurrent_v2",
    "cuCtxPushCurrent_v2",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuInit",
    "cuLaunchKernelEx",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuStreamSynchronize",
    "cuTensorMapEncodeTiled",
];

macro_rules! handle {
    ($($(#[$doc:meta])* $name:ident($raw:ty)),*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name(pub $raw);
        // SAFETY: an opaque handle; the driver may be called with it from any thread.
        unsafe impl Send for $name {}
        // SAFETY: as above.
        unsafe impl Sync for $name {}
    )*};
}

handle! {
    /// A context.
    Context(sys::CUcontext),
    /// A loaded module.
    Module(sys::CUmodule),
    /// A kernel of a module.
    Function(sys::CUfunction)
}

/// A driver that has been started and has every function that is needed.
pub struct Driver {
    /// The CUDA version it implements, such as `12.4`.
    version: String,
}

impl Driver {
    /// The driver, opened and started at the first call.
    pub fn get() -> Result<&'static Self> {
        static DRIVER: OnceLock<Result<Driver>> = OnceLock::new();
        DRIVER.get_or_init(Self::open).as_ref().map_err(Clone::clone)
    }

    fn open() -> Result<Self> {
        // SAFETY: opening the NVIDIA driver runs only its own initializers.
        if !unsafe { sys::is_culib_present() } {
            let name = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so" };
            return Err(Error::NoDriver { reason: format!("{name} was not found") });
        }
        let version = version().unwrap_or_else(|| "unknown".to_owned());
        if is_older(&version) || !FUNCTIONS.iter().all(|name| has(name)) {
            return Err(Error::DriverTooOld { found: version, needed: NEEDED.1 });
        }
        let driver = Self { version };
        // SAFETY: the first call into the driver, as it demands.
        match unsafe { sys::cuInit(0) } {
            CUresult::CUDA_SUCCESS => Ok(driver),
            code => Err(Error::NoDevice { code: code as u32, name: name_of(code) }),
        }
    }

    /// The status of `call` as a result.
    pub fn check(&self, call: &'static str, status: CUresult) -> Result<()> {
        match status {
            CUresult::CUDA_SUCCESS => Ok(()),
            CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
                Err(Error::DriverTooOld { found: self.version.clone(), needed: NEEDED.1 })
            }
            code => Err(Error::Driver { call, code: code as u32, name: name_of(code), text: text_of(code) }),
        }
    }

    /// The status of an allocation of `bytes` bytes.
    pub fn check_allocation(&self, bytes: usize, status: CUresult) -> Result<()> {
        match status {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(Error::OutOfMemory { bytes }),
            status => self.check("cuMemAlloc", status),
        }
    }
}

/// Whether the library, which is present, has a function.
fn has(name: &str) -> bool {
    // SAFETY: the symbol is looked up and not called.
    unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()) }.is_ok()
}

/// The CUDA version that the driver implements, such as `12.4`; it may be asked before all else.
fn version() -> Option<String> {
    let mut version = 0;
    // SAFETY: the function is there and writes one integer.
    let status = has("cuDriverGetVersion").then(|| unsafe { sys::cuDriverGetVersion(&raw mut version) })?;
    (status == CUresult::CUDA_SUCCESS).then(|| format!("{}.{}", version / 1000, version % 1000 / 10))
}

fn is_older(version: &str) -> bool {
    let major = version.split('.').next().and_then(|major| major.parse::<c_int>().ok());
    major.is_some_and(|major| major < NEEDED.0 / 1000)
}

fn name_of(code: CUresult) -> String {
    // SAFETY: the function is one of those that were found.
    describe(code, |text| unsafe { sys::cuGetErrorName(code, text) })
}

fn text_of(code: CUresult) -> String {
    // SAFETY: as above.
    describe(code, |text| unsafe { sys::cuGetErrorString(code, text) })
}

/// The static string that `ask`, a function of the driver, stores, if it stores one.
fn describe(code: CUresult, ask: impl FnOnce(*mut *const c_char) -> CUresult) -> String {
    let mut text = std::ptr::null();
    if ask(&raw mut text) == CUresult::CUDA_SUCCESS && !text.is_null() {
        // SAFETY: what the driver stored is a C string that lives as long as the driver.
        return unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    }
    format!("error {}", code as u32)
}
