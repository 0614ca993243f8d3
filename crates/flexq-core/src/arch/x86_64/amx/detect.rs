//! Whether tiles may be used: the processor has them, the system saves them when threads
//! switch, and it lets this process use them.

#[cfg(target_os = "linux")]
pub(super) fn is_usable() -> bool {
    use std::sync::OnceLock;

    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| has_tiles() && are_saved() && request_permission())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_usable() -> bool {
    false
}

/// CPUID leaf 7: AMX-BF16, AMX-TILE and AMX-INT8.
#[cfg(target_os = "linux")]
fn has_tiles() -> bool {
    const BF16_TILE_INT8: u32 = 0b1101 << 22;
    std::arch::x86_64::__get_cpuid_max(0).0 >= 7
        && std::arch::x86_64::__cpuid_count(7, 0).edx & BF16_TILE_INT8 == BF16_TILE_INT8
}

/// XCR0: the system saves the tiles' configuration and their data.
#[cfg(target_os = "linux")]
fn are_saved() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const TILES: u64 = 0b11 << 17;
    // SAFETY: XGETBV is there where CPUID reports OSXSAVE.
    std::arch::x86_64::__cpuid(1).ecx & OSXSAVE != 0 && unsafe { xgetbv() } & TILES == TILES
}

/// # Safety
/// The processor must report OSXSAVE.
#[cfg(target_os = "linux")]
#[target_feature(enable = "xsave")]
unsafe fn xgetbv() -> u64 {
    // SAFETY: the caller's.
    unsafe { std::arch::x86_64::_xgetbv(0) }
}

/// Linux gives a process tiles when it asks for them, for all its threads.
#[cfg(target_os = "linux")]
fn request_permission() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}
