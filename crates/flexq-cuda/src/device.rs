//! GPUs: finding them, and the context and kernels of each.

use std::collections::HashMap;
use std::ffi::{CString, c_int};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::config::Arch;
use crate::driver::{Context, DeviceAttribute, Driver, Function, MAX_DYNAMIC_SHARED, Module, STATIC_SHARED};
use crate::error::{Error, Result};
use crate::kernels::Source;

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
    driver.check("cuDeviceGetCount", unsafe { (driver.device_count)(&raw mut count) })?;
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
        let status = unsafe { (driver.retain_primary_context)(&raw mut context, ordinal as c_int) };
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
        self.driver.check("cuCtxPushCurrent", unsafe { (self.driver.push_context)(self.context) })?;
        let result = f(self.driver);
        let mut popped = Context(std::ptr::null_mut());
        // SAFETY: pops what was pushed above.
        let status = unsafe { (self.driver.pop_context)(&raw mut popped) };
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
            let status = unsafe { (driver.get_function)(&raw mut function, module, symbol.as_ptr()) };
            driver.check("cuModuleGetFunction", status)?;
            let mut fixed: c_int = 0;
            // SAFETY: writes one integer; the function is alive.
            let status = unsafe { (driver.get_function_attribute)(&raw mut fixed, STATIC_SHARED, function) };
            driver.check("cuFuncGetAttribute", status)?;
            // The most any launch may ask for, so that launches need not set it.
            let most = self.info.arch.shared_bytes as c_int - fixed;
            // SAFETY: the function is alive.
            let status = unsafe { (driver.set_function_attribute)(function, MAX_DYNAMIC_SHARED, most) };
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
            let status = unsafe { (driver.load_module)(&raw mut module, ptx.as_ptr().cast()) };
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
    driver.check("cuDeviceGet", unsafe { (driver.device_get)(&raw mut device, ordinal as c_int) })?;
    let attribute = |which: DeviceAttribute| {
        let mut value: c_int = 0;
        // SAFETY: writes one integer.
        let status = unsafe { (driver.device_attribute)(&raw mut value, which as u32, device) };
        driver.check("cuDeviceGetAttribute", status).map(|()| value.unsigned_abs())
    };
    let capability = (attribute(DeviceAttribute::ComputeMajor)?, attribute(DeviceAttribute::ComputeMinor)?);
    if capability < (8, 0) {
        return Err(Error::UnsupportedDevice { ordinal, major: capability.0, minor: capability.1 });
    }
    let mut name = [0_u8; 128];
    // SAFETY: writes at most the given number of bytes, NUL included.
    let status = unsafe { (driver.device_name)(name.as_mut_ptr().cast(), name.len() as c_int, device) };
    driver.check("cuDeviceGetName", status)?;
    let length = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    let mut memory = 0;
    // SAFETY: writes one size.
    driver.check("cuDeviceTotalMem", unsafe { (driver.device_memory)(&raw mut memory, device) })?;
    Ok(Info {
        ordinal,
        name: String::from_utf8_lossy(&name[..length]).into_owned(),
        arch: Arch {
            capability,
            multiprocessors: attribute(DeviceAttribute::Multiprocessors)?,
            shared_bytes: attribute(DeviceAttribute::SharedBytesPerBlock)?,
        },
        memory,
        l2: attribute(DeviceAttribute::L2Bytes)? as usize,
    })
}
