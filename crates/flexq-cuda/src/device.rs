//! GPUs: finding them, and the context and kernels of each.

use std::collections::HashMap;
use std::ffi::{CString, c_int};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cudarc::driver::sys::{self, CUdevice_attribute, CUfunction_attribute};

use crate::config::Arch;
use crate::driver::{Context, Driver, Function, Module};
use crate::error::{Error, Result};
use crate::kernels::Source;

/// What a kernel takes besides dynamic shared memory.
const STATIC_SHARED: CUfunction_attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
/// The most dynamic shared memory a launch may ask for.
const MAX_DYNAMIC_SHARED: CUfunction_attribute =
    CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;

/// The share of a multiprocessor's cache that is shared memory, in percent.
const CARVEOUT: CUfunction_attribute =
    CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;

/// The environment variable that lets a later card pass for one before Hopper, such as `8.6`: it is
/// given the kernels of that one, and no more shared memory.
pub const CAPABILITY_VARIABLE: &str = "FLEXQ_CAPABILITY";

/// What there is to know of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its number, as in torch.
    pub ordinal: usize,
    /// Its product name.
    pub name: String,
    /// What the choice of kernels depends on.
    pub arch: Arch,
    /// Bytes of memory.
    pub memory: usize,
    /// Bytes of level-2 cache.
    pub l2: usize,
}

/// How many GPUs there are.
///
/// # Errors
/// [`Error::NoDriver`], [`Error::DriverTooOld`] or [`Error::NoDevice`].
pub fn count() -> Result<usize> {
    let driver = Driver::get()?;
    let mut count: c_int = 0;
    // SAFETY: writes one integer.
    driver.check("cuDeviceGetCount", unsafe { sys::cuDeviceGetCount(&raw mut count) })?;
    Ok(count.unsigned_abs() as usize)
}

/// A GPU with its primary context, which torch uses too, and the kernels loaded so far.
pub struct Device {
    driver: &'static Driver,
    info: Info,
    context: Context,
    modules: Mutex<HashMap<&'static str, Module>>,
    functions: Mutex<HashMap<String, Kernel>>,
}

/// A kernel ready to launch.
#[derive(Clone, Copy)]
pub(crate) struct Kernel {
    pub(crate) function: Function,
    /// It was compiled with dependent launch.
    pub(crate) dependent: bool,
}

impl Device {
    /// GPU number `ordinal`, opened at the first call.
    ///
    /// # Errors
    /// No driver or GPU, an unknown number, a GPU older than Ampere, or a failure of the driver.
    pub fn get(ordinal: usize) -> Result<Arc<Self>> {
        static DEVICES: OnceLock<Mutex<HashMap<usize, Arc<Device>>>> = OnceLock::new();
        let devices = DEVICES.get_or_init(Mutex::default);
        let mut devices = devices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = devices.get(&ordinal) {
            return Ok(Arc::clone(device));
        }
        let device = Arc::new(Self::open(ordinal)?);
        devices.insert(ordinal, Arc::clone(&device));
        Ok(device)
    }

    fn open(ordinal: usize) -> Result<Self> {
        let driver = Driver::get()?;
        let info = info(ordinal)?;
        let mut context = Context(std::ptr::null_mut());
        // SAFETY: the ordinal was checked; the context lives until the process ends.
        let status = unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut context.0, ordinal as c_int) };
        driver.check("cuDevicePrimaryCtxRetain", status)?;
        Ok(Self { driver, info, context, modules: Mutex::default(), functions: Mutex::default() })
    }

    /// What there is to know of this GPU.
    #[must_use]
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Runs `f` with this GPU's context current.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&'static Driver) -> Result<T>) -> Result<T> {
        // SAFETY: the context is alive; the pop below undoes the push.
        self.driver.check("cuCtxPushCurrent", unsafe { sys::cuCtxPushCurrent_v2(self.context.0) })?;
        let result = f(self.driver);
        let mut popped = std::ptr::null_mut();
        // SAFETY: pops what was pushed above.
        let status = unsafe { sys::cuCtxPopCurrent_v2(&raw mut popped) };
        result.and_then(|value| self.driver.check("cuCtxPopCurrent", status).map(|()| value))
    }

    /// Kernel `name` of `source`, compiled by the driver at the first call.
    pub(crate) fn kernel(&self, source: &'static str, name: &str) -> Result<Kernel> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&kernel) = functions.get(name) {
            return Ok(kernel);
        }
        let module = self.module(source)?;
        let missing = || Error::Config { config: name.to_owned(), reason: "no such kernel".to_owned() };
        let symbol = CString::new(name).map_err(|_| missing())?;
        let function = self.with(|driver| {
            let mut function = Function(std::ptr::null_mut());
            // SAFETY: the module is loaded in the current context; the name ends in NUL.
            let status = unsafe { sys::cuModuleGetFunction(&raw mut function.0, module.0, symbol.as_ptr()) };
            driver.check("cuModuleGetFunction", status)?;
            let mut fixed: c_int = 0;
            // SAFETY: writes one integer; the function is alive.
            let status = unsafe { sys::cuFuncGetAttribute(&raw mut fixed, STATIC_SHARED, function.0) };
            driver.check("cuFuncGetAttribute", status)?;
            // The most any launch may ask for, so that launches need not set it.
            let most = self.info.arch.shared_bytes as c_int - fixed;
            // SAFETY: the function is alive.
            let status = unsafe { sys::cuFuncSetAttribute(function.0, MAX_DYNAMIC_SHARED, most) };
            driver.check("cuFuncSetAttribute", status)?;
            // All of it, whatever a launch needs: one that prefers another share cannot start
            // beside this one, nor this one beside a launch before it.
            // SAFETY: the function is alive.
            let status = unsafe { sys::cuFuncSetAttribute(function.0, CARVEOUT, 100) };
            driver.check("cuFuncSetAttribute", status)?;
            Ok(function)
        })?;
        let capability = self.info.arch.capability;
        let dependent = Source::named(source).is_some_and(|source| source.is_hopper(capability));
        let kernel = Kernel { function, dependent };
        functions.insert(name.to_owned(), kernel);
        Ok(kernel)
    }

    fn module(&self, source: &'static str) -> Result<Module> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&module) = modules.get(source) {
            return Ok(module);
        }
        let ptx = Source::named(source).and_then(|source| source.ptx(self.info.arch.capability));
        let Some(ptx) = ptx else {
            return Err(Error::Config {
                config: source.to_owned(),
                reason: "not built for this GPU".to_owned(),
            });
        };
        let module = self.with(|driver| {
            let mut module = Module(std::ptr::null_mut());
            // SAFETY: the text ends in NUL, as the driver expects of PTX.
            let status = unsafe { sys::cuModuleLoadData(&raw mut module.0, ptx.as_ptr().cast()) };
            driver.check("cuModuleLoadData", status)?;
            Ok(module)
        })?;
        modules.insert(source, module);
        Ok(module)
    }
}

/// What there is to know of GPU `ordinal`, without opening a context on it.
///
/// # Errors
/// No driver or GPU, an unknown number, or a GPU older than Ampere.
pub fn info(ordinal: usize) -> Result<Info> {
    let driver = Driver::get()?;
    let count = count()?;
    if ordinal >= count {
        return Err(Error::UnknownDevice { ordinal, count });
    }
    let mut device: c_int = 0;
    // SAFETY: writes one integer; the ordinal was checked.
    driver.check("cuDeviceGet", unsafe { sys::cuDeviceGet(&raw mut device, ordinal as c_int) })?;
    let attribute = |which: CUdevice_attribute| {
        let mut value: c_int = 0;
        // SAFETY: writes one integer.
        let status = unsafe { sys::cuDeviceGetAttribute(&raw mut value, which, device) };
        driver.check("cuDeviceGetAttribute", status).map(|()| value.unsigned_abs())
    };
    let capability = (
        attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    if capability < (8, 0) {
        return Err(Error::UnsupportedDevice { ordinal, major: capability.0, minor: capability.1 });
    }
    let shared_bytes = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
    let older = std::env::var(CAPABILITY_VARIABLE).ok();
    let (capability, shared_bytes) = restricted(capability, shared_bytes, older.as_deref());
    let mut name = [0_u8; 128];
    // SAFETY: writes at most the given number of bytes, NUL included.
    let status = unsafe { sys::cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as c_int, device) };
    driver.check("cuDeviceGetName", status)?;
    let length = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    let mut memory = 0;
    // SAFETY: writes one size.
    driver.check("cuDeviceTotalMem", unsafe { sys::cuDeviceTotalMem_v2(&raw mut memory, device) })?;
    Ok(Info {
        ordinal,
        name: String::from_utf8_lossy(&name[..length]).into_owned(),
        arch: Arch {
            capability,
            multiprocessors: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared_bytes,
        },
        memory,
        l2: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)? as usize,
    })
}

/// Capability and shared memory of a block, as of the `older` card if one is named.
fn restricted(capability: (u32, u32), shared_bytes: u32, older: Option<&str>) -> ((u32, u32), u32) {
    let numbers = older.and_then(|text| text.split_once('.'));
    let older = numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    match older {
        Some(older) if ((8, 0)..(9, 0).min(capability)).contains(&older) => {
            let most = if older == (8, 0) { 163 * 1024 } else { 99 * 1024 };
            (older, shared_bytes.min(most))
        }
        _ => (capability, shared_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_older_cards_can_be_named() {
        let hopper = ((9, 0), 232_448);
        assert_eq!(restricted(hopper.0, hopper.1, Some("8.0")), ((8, 0), 166_912));
        assert_eq!(restricted(hopper.0, hopper.1, Some("8.6")), ((8, 6), 101_376));
        for other in [None, Some("9.0"), Some("10.0"), Some("7.5"), Some("8"), Some("new")] {
            assert_eq!(restricted(hopper.0, hopper.1, other), hopper);
        }
        assert_eq!(restricted((8, 0), 166_912, Some("8.6")), ((8, 0), 166_912));
    }
}
