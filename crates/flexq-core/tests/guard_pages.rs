//! Kernels touch nothing outside of what they are given: here every allocation of the process ends
//! with a page that cannot be read, or begins with one, so that a step too far ends the process. This
//! sees what no sanitizer does: instructions written as assembly, stores past the caches, tiles.

#![cfg(target_os = "linux")]
#![allow(clippy::expect_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use flexq_core::{
    ActivationBits, Cpu, FloatRows, FloatRowsMut, FloatType, Group, Isa, MatmulOptions, QTensor, ScaleType,
    Scheme, Threads,
};

const PAGE: usize = 4096;

/// Gives every allocation its own pages, between two that cannot be touched.
struct Guarded;

#[global_allocator]
static GUARDED: Guarded = Guarded;

/// Whether memory begins where its first page does, rather than ending where the last one does.
static FLUSH_LEFT: AtomicBool = AtomicBool::new(false);

/// The smallest allocations are too many, and no kernel's.
fn is_guarded(layout: Layout) -> bool {
    layout.size() >= 16 && layout.align() <= PAGE
}

// SAFETY: memory that is guarded is mapped for this allocation alone, with room for its size at its
// alignment, and goes back by the same rule; the rest is the system's.
unsafe impl GlobalAlloc for Guarded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_guarded(layout) {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        }
        let inner = layout.size().next_multiple_of(PAGE);
        let (access, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, of which the inner pages are made accessible.
        unsafe {
            let outer = libc::mmap(ptr::null_mut(), inner + 2 * PAGE, access, flags, -1, 0);
            if outer == libc::MAP_FAILED {
                return ptr::null_mut();
            }
            let first = outer.cast::<u8>().add(PAGE);
            if libc::mprotect(first.cast(), inner, libc::PROT_READ | libc::PROT_WRITE) != 0 {
                return ptr::null_mut();
            }
            let place = if FLUSH_LEFT.load(Ordering::Relaxed) { 0 } else { inner - layout.size() };
            first.add(place / layout.align() * layout.align())
        }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if !is_guarded(layout) {
            // SAFETY: the caller's promise.
            return unsafe { System.dealloc(memory, layout) };
        }
        let inner = layout.size().next_multiple_of(PAGE);
        // memory begins in the first of the inner pages
        let outer = memory.wrapping_sub(memory.addr() % PAGE + PAGE);
        // SAFETY: that whole mapping was made for this allocation.
        unsafe { libc::munmap(outer.cast(), inner + 2 * PAGE) };
    }
}

fn noise(i: usize) -> u64 {
    let x = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32
}

/// Bytes of floats from 0.5 to 1 or so, of either sign.
fn floats(dtype: FloatType, count: usize) -> Vec<u8> {
    let bytes = (0..count).flat_map(|i| {
        let bits = noise(i) as u32;
        let word = |exponent: u16, mask: u16| ((bits as u16 & (mask | 0x8000)) | exponent).to_le_bytes();
        match dtype {
            FloatType::F32 => (bits & 0x807f_ffff | 0x3f00_0000).to_le_bytes().to_vec(),
            FloatType::F16 => word(0x3800, 0x03ff).to_vec(),
            FloatType::BF16 => word(0x3f00, 0x007f).to_vec(),
        }
    });
    let mut exact = Vec::with_capacity(count * dtype.size());
    exact.extend(bytes);
    exact
}

const FLOATS: [FloatType; 3] = [FloatType::F32, FloatType::F16, FloatType::BF16];

/// Everything with a matrix `[n, k]` and up to 35 rows of activations.
fn work(cpu: Cpu, n: usize, k: usize, scheme: &Scheme) {
    let mut found = None;
    for dtype in FLOATS {
        let w = floats(dtype, n * k);
        let src = FloatRows::new(&w, dtype, n, k).expect("sizes fit");
        found = Some(cpu.quantize(&src, &[n, k], scheme, Threads::ONE).expect("finite"));
    }
    let q: QTensor = found.expect("three types");
    let mut codes = vec![0; n * k];
    cpu.unpack_codes(&q, &mut codes, Threads::ONE).expect("sizes fit");
    let mut packed = vec![0; q.packed().len()];
    cpu.pack_codes(&codes, n, k, &mut packed).expect("sizes fit");
    assert!(packed == q.packed()[..], "{} {n}x{k}", cpu.isa());
    for dtype in FLOATS {
        let mut w = vec![0; n * k * dtype.size()];
        let mut out = FloatRowsMut::new(&mut w, dtype, n, k).expect("sizes fit");
        cpu.dequantize_rows(&q, 0..n, &mut out, Threads::ONE).expect("sizes fit");
    }
    for m in [1, 2, 4, 5, 8, 9, 16, 17, 35] {
        for bits in [ActivationBits::A8, ActivationBits::A6, ActivationBits::A16] {
            let dtype = FLOATS[(m + n + k) % 3];
            let (x, mut y) = (floats(dtype, m * k), vec![0; m * n * dtype.size()]);
            let x = FloatRows::new(&x, dtype, m, k).expect("sizes fit");
            let mut out = FloatRowsMut::new(&mut y, dtype, m, n).expect("sizes fit");
            let options = MatmulOptions { bits, threads: Threads::ONE, ..MatmulOptions::default() };
            cpu.matmul(&x, &q, &options, &mut out).expect("sizes fit");
        }
    }
}

/// A new thread has no memory left from earlier, larger cases.
fn in_new_thread(work: impl FnOnce() + Send) {
    thread::scope(|scope| {
        scope.spawn(work);
    });
}

/// The same on every set of kernels.
fn everything() {
    for cpu in Isa::ALL.into_iter().filter_map(Cpu::with_isa).filter(|cpu| cpu.isa() != Isa::Scalar) {
        for k in [1, 3, 31, 32, 64, 100, 128, 130, 172, 256, 300, 515, 640, 1024] {
            for (i, n) in [1, 7, 16, 33].into_iter().enumerate() {
                let group = [Group::Columns(32), Group::Columns(64), Group::Columns(128), Group::Row];
                let scheme = Scheme { group: group[(i + k) % 4], ..Scheme::default() };
                in_new_thread(|| work(cpu, n, k, &scheme));
                let scheme =
                    Scheme { group: Group::Columns(32), scale_type: ScaleType::Pair, ..Scheme::default() };
                in_new_thread(|| work(cpu, n, k, &scheme));
            }
        }
    }
}

#[test]
fn nothing_beyond_either_end_is_touched() {
    let guarded = Vec::<u8>::with_capacity(100);
    assert!(guarded.as_ptr().wrapping_add(100).addr().is_multiple_of(PAGE), "memory ends with a page");
    everything();
    FLUSH_LEFT.store(true, Ordering::Relaxed);
    let guarded = Vec::<u8>::with_capacity(100);
    assert!(guarded.as_ptr().addr().is_multiple_of(PAGE), "memory begins with a page");
    everything();
}
