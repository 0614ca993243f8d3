//! Torch's threads, for products of its tensors.
//!
//! Torch's operators run on threads of OpenMP, which stay awake for milliseconds after each of them.
//! Other threads would share their processors, and each would wait for the other's time slice to end,
//! so flexq works on those that are there.

use std::any::Any;
use std::ffi::{c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process;
use std::sync::{Mutex, OnceLock, PoisonError};

use flexq_core::Threads;

/// `count` threads, torch's if they can be had.
pub fn threads(count: usize) -> Threads {
    let threads = Threads::new(count);
    if openmp().is_some() { threads.of_team(run) } else { threads }
}

/// `GOMP_parallel`, which compilers call where a program says `#pragma omp parallel`: calls a function
/// with an argument on up to so many threads and returns when all have returned. Other libraries of
/// OpenMP have it as well, under this name.
type Parallel = unsafe extern "C" fn(extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint);

/// The process that loaded this module.
static LOADER: OnceLock<u32> = OnceLock::new();

/// Called when this module is loaded: torch may have used its threads before flexq first asks for them.
pub fn load() {
    LOADER.get_or_init(process::id);
}

/// What the library of torch itself is linked to; not in a process forked since this module was loaded,
/// whose threads of OpenMP are gone without its knowing.
fn openmp() -> Option<Parallel> {
    static OPENMP: OnceLock<Option<Parallel>> = OnceLock::new();
    if LOADER.get() == Some(&process::id()) { *OPENMP.get_or_init(find) } else { None }
}

#[cfg(target_os = "linux")]
fn find() -> Option<Parallel> {
    // SAFETY: names that end with 0. The library is not loaded if it is not yet, and stays for good.
    let symbol = unsafe {
        let torch = libc::dlopen(c"libtorch_cpu.so".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        if torch.is_null() {
            return None;
        }
        libc::dlsym(torch, c"GOMP_parallel".as_ptr())
    };
    if symbol.is_null() {
        return None;
    }
    // SAFETY: the function of that name has this type in every library of OpenMP.
    Some(unsafe { std::mem::transmute::<*mut c_void, Parallel>(symbol) })
}

#[cfg(not(target_os = "linux"))]
fn find() -> Option<Parallel> {
    None
}

/// What every thread of a region gets.
struct Region<'a> {
    work: &'a (dyn Fn() + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Calls `work` on up to `count` threads of OpenMP at once.
fn run(count: usize, work: &(dyn Fn() + Sync)) {
    let Some(parallel) = openmp() else { return work() };
    let region = Region { work, panic: Mutex::new(None) };
    let count = c_uint::try_from(count).unwrap_or(c_uint::MAX);
    // SAFETY: `enter` gets the region, which may be shared among threads and lives until all calls
    // have returned; it does not unwind.
    unsafe { parallel(enter, (&raw const region).cast_mut().cast(), count, 0) };
    if let Some(panic) = region.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
        resume_unwind(panic);
    }
}

extern "C" fn enter(region: *mut c_void) {
    // SAFETY: what `run` passed.
    let region = unsafe { &*region.cast::<Region<'_>>() };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(region.work)) {
        *region.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
    }
}
