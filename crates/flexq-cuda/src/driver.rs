//! The driver's functions this crate needs, opened at run time.
//!
//! An own table of two dozen functions, rather than a binding of all of them, so that a
//! missing library or a driver too old for one function is an error that says so, before
//! anything was called.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use libloading::Library;

use crate::error::{Error, Result};

pub type Status = c_uint;
pub type DevicePointer = u64;

const SUCCESS: Status = 0;
const OUT_OF_MEMORY: Status = 2;
const UNSUPPORTED_PTX: Status = 222;

/// The least CUDA version of a driver: launches with attributes, PTX 8.0.
const NEEDED: (c_int, &str) = (12_000, "12.0");

macro_rules! handle {
    ($($(#[$doc:meta])* $name:ident),*) => {$(
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Clone, Copy)]
        pub struct $name(pub *mut c_void);
        // SAFETY: an opaque handle; the driver may be called with it from any thread.
        unsafe impl Send for $name {}
        // SAFETY: as above.
        unsafe impl Sync for $name {}
    )*};
}

handle! {
    /// A context.
    Context,
    /// A loaded module.
    Module,
    /// A kernel of a module.
    Function,
    /// A stream; null is the default one.
    Stream
}

/// `CUdevice_attribute`, those that are read.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum DeviceAttribute {
    Multiprocessors = 16,
    ComputeMajor = 75,
    ComputeMinor = 76,
    SharedBytesPerBlock = 97,
    L2Bytes = 38,
}

/// `CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES`: what a kernel takes besides dynamic memory.
pub const STATIC_SHARED: c_uint = 1;
/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
pub const MAX_DYNAMIC_SHARED: c_uint = 8;

/// `CUlaunchAttribute` with the two values that are used, in their C layout.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LaunchAttribute {
    id: c_uint,
    padding: c_uint,
    value: [c_uint; 16],
}

impl LaunchAttribute {
    /// Blocks of a cluster.
    pub fn cluster(blocks: u32) -> Self {
        let mut value = [0; 16];
        value[..3].copy_from_slice(&[blocks, 1, 1]);
        Self { id: 4, padding: 0, value }
    }

    /// The kernel may start before the one ahead of it in the stream has finished.
    pub fn dependent_launch() -> Self {
        let mut value = [0; 16];
        value[0] = 1;
        Self { id: 6, padding: 0, value }
    }
}

/// `CUlaunchConfig`.
#[repr(C)]
pub struct LaunchConfig {
    pub grid: [c_uint; 3],
    pub block: [c_uint; 3],
    pub shared_bytes: c_uint,
    pub stream: Stream,
    pub attributes: *const LaunchAttribute,
    pub attribute_count: c_uint,
}

macro_rules! functions {
    ($($field:ident = $name:literal ($($argument:ty),*);)*) => {
        /// The functions, by their role.
        pub struct Driver {
            $(pub $field: unsafe extern "C" fn($($argument),*) -> Status,)*
            _library: Library,
        }

        impl Driver {
            fn load(library: Library, version: &str) -> Result<Self> {
                $(
                    // SAFETY: the type is that of the function in cuda.h.
                    let $field = *unsafe { library.get::<unsafe extern "C" fn($($argument),*) -> Status>($name) }
                        .map_err(|_| Error::DriverTooOld { found: version.to_owned(), needed: NEEDED.1 })?;
                )*
                Ok(Self { $($field,)* _library: library })
            }
        }
    };
}

functions! {
    init = b"cuInit\0" (c_uint);
    error_name = b"cuGetErrorName\0" (Status, *mut *const c_char);
    error_string = b"cuGetErrorString\0" (Status, *mut *const c_char);
    device_count = b"cuDeviceGetCount\0" (*mut c_int);
    device_get = b"cuDeviceGet\0" (*mut c_int, c_int);
    device_name = b"cuDeviceGetName\0" (*mut c_char, c_int, c_int);
    device_memory = b"cuDeviceTotalMem_v2\0" (*mut usize, c_int);
    device_attribute = b"cuDeviceGetAttribute\0" (*mut c_int, c_uint, c_int);
    retain_primary_context = b"cuDevicePrimaryCtxRetain\0" (*mut Context, c_int);
    push_context = b"cuCtxPushCurrent_v2\0" (Context);
    pop_context = b"cuCtxPopCurrent_v2\0" (*mut Context);
    load_module = b"cuModuleLoadData\0" (*mut Module, *const c_void);
    get_function = b"cuModuleGetFunction\0" (*mut Function, Module, *const c_char);
    get_function_attribute = b"cuFuncGetAttribute\0" (*mut c_int, c_uint, Function);
    set_function_attribute = b"cuFuncSetAttribute\0" (Function, c_uint, c_int);
    launch = b"cuLaunchKernelEx\0" (*const LaunchConfig, Function, *mut *mut c_void, *mut *mut c_void);
    encode_tiled = b"cuTensorMapEncodeTiled\0" (*mut c_void, c_uint, c_uint, *mut c_void, *const u64, *const u64, *const c_uint, *const c_uint, c_uint, c_uint, c_uint, c_uint);
    allocate = b"cuMemAlloc_v2\0" (*mut DevicePointer, usize);
    free = b"cuMemFree_v2\0" (DevicePointer);
    copy_to_device = b"cuMemcpyHtoDAsync_v2\0" (DevicePointer, *const c_void, usize, Stream);
    copy_to_host = b"cuMemcpyDtoHAsync_v2\0" (*mut c_void, DevicePointer, usize, Stream);
    fill = b"cuMemsetD8Async\0" (DevicePointer, u8, usize, Stream);
    synchronize = b"cuStreamSynchronize\0" (Stream);
}

impl Driver {
    /// The driver, opened and started at the first call.
    pub fn get() -> Result<&'static Self> {
        static DRIVER: OnceLock<Result<Driver>> = OnceLock::new();
        DRIVER.get_or_init(Self::open).as_ref().map_err(Clone::clone)
    }

    fn open() -> Result<Self> {
        let names: &[&str] = if cfg!(windows) { &["nvcuda.dll"] } else { &["libcuda.so.1", "libcuda.so"] };
        let mut reason = String::new();
        for name in names {
            // SAFETY: opening the NVIDIA driver runs only its own initializers.
            match unsafe { Library::new(name) } {
                Ok(library) => return Self::start(library),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(Error::NoDriver { reason })
    }

    fn start(library: Library) -> Result<Self> {
        let version = driver_version(&library);
        let text = version.map_or("unknown".to_owned(), |v| format!("{}.{}", v / 1000, v % 1000 / 10));
        if version.is_some_and(|version| version < NEEDED.0) {
            return Err(Error::DriverTooOld { found: text, needed: NEEDED.1 });
        }
        let driver = Self::load(library, &text)?;
        // SAFETY: the first call into the driver, as it demands.
        match unsafe { (driver.init)(0) } {
            SUCCESS => Ok(driver),
            code => Err(Error::NoDevice { code, name: driver.name_of(code) }),
        }
    }

    /// The status of `call` as a result.
    pub fn check(&self, call: &'static str, status: Status) -> Result<()> {
        match status {
            SUCCESS => Ok(()),
            UNSUPPORTED_PTX => Err(Error::DriverTooOld {
                found: driver_version(&self._library)
                    .map_or("unknown".to_owned(), |v| format!("{}.{}", v / 1000, v % 1000 / 10)),
                needed: NEEDED.1,
            }),
            code => Err(Error::Driver { call, code, name: self.name_of(code), text: self.text_of(code) }),
        }
    }

    /// The status of an allocation of `bytes` bytes.
    pub fn check_allocation(&self, bytes: usize, status: Status) -> Result<()> {
        if status == OUT_OF_MEMORY {
            Err(Error::OutOfMemory { bytes })
        } else {
            self.check("cuMemAlloc", status)
        }
    }

    fn name_of(&self, code: Status) -> String {
        // SAFETY: the function fills in a static string or null.
        unsafe { describe(self.error_name, code) }
    }

    fn text_of(&self, code: Status) -> String {
        // SAFETY: as above.
        unsafe { describe(self.error_string, code) }
    }
}

/// The CUDA version the driver implements, such as 12040.
fn driver_version(library: &Library) -> Option<c_int> {
    let mut version = 0;
    // SAFETY: the function may be called before all others and writes one integer.
    let status = unsafe {
        let get = library.get::<unsafe extern "C" fn(*mut c_int) -> Status>(b"cuDriverGetVersion\0").ok()?;
        get(&raw mut version)
    };
    (status == SUCCESS).then_some(version)
}

/// # Safety
/// `function` stores a static NUL-terminated string, or nothing.
unsafe fn describe(
    function: unsafe extern "C" fn(Status, *mut *const c_char) -> Status,
    code: Status,
) -> String {
    let mut text = std::ptr::null();
    // SAFETY: the caller vouches for the function; what it stored is a C string.
    unsafe {
        if function(code, &raw mut text) == SUCCESS && !text.is_null() {
            return CStr::from_ptr(text).to_string_lossy().into_owned();
        }
    }
    format!("error {code}")
}
