//! The instructions, which Rust does not offer yet, as functions.
//!
//! Tiles 0 and 1 hold sums, 2 and 3 activations, 4 to 7 weights.
//! The compiler knows nothing of tiles and keeps nothing in them; the order of these
//! instructions among each other is kept because each may touch memory.

use std::arch::asm;

/// Rows of a tile.
const ROWS: u8 = 16;
/// Bytes of a row of sums or activations.
const BYTES: u16 = 64;
/// Bytes between rows in memory.
const STRIDE: usize = 64;

/// The shape of every tile, in the form of palette 1.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Tiles with a shape; without it when dropped.
pub(super) struct Configured(());

impl Configured {
    /// Tiles for steps of `bytes` of every weight row, which are 64, 32 or 16.
    ///
    /// # Safety
    /// The thread may use tiles.
    pub unsafe fn new(bytes: u16) -> Self {
        let mut shapes =
            Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        shapes.row_bytes[..4].fill(BYTES);
        shapes.row_bytes[4..8].fill(bytes);
        shapes.rows[..8].fill(ROWS);
        shapes.rows[2..4].fill((bytes / 4) as u8);
        // SAFETY: the caller's; the shapes are 64 bytes that palette 1 allows.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, preserves_flags)) };
        Self(())
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: tiles are configured, so they are there.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

/// Sets tile `T` to zero.
///
/// # Safety
/// Tiles are configured.
#[inline]
pub(super) unsafe fn zero<const T: usize>() {
    // SAFETY: the caller's.
    unsafe { asm!("tilezero tmm{t}", t = const T, options(nostack, preserves_flags)) };
}

/// Loads tile `T`.
///
/// # Safety
/// Tiles are configured and `from` points to the rows of one, 64 bytes apart.
#[inline]
pub(super) unsafe fn load<const T: usize>(from: *const u8) {
    // SAFETY: the caller's.
    unsafe {
        asm!("tileloadd tmm{t}, [{from} + {stride}*1]", t = const T, from = in(reg) from,
            stride = in(reg) STRIDE, options(nostack, preserves_flags, readonly));
    }
}

/// Stores the sums of tile `T`.
///
/// # Safety
/// Tiles are configured and `sums` points to 256 of them.
#[inline]
pub(super) unsafe fn store<const T: usize, S>(sums: *mut S) {
    // SAFETY: the caller's.
    unsafe {
        asm!("tilestored [{sums} + {stride}*1], tmm{t}", t = const T, sums = in(reg) sums,
            stride = in(reg) STRIDE, options(nostack, preserves_flags));
    }
}

/// Adds the products of signed bytes of tile `W`'s rows with tile `X`'s to tile `Y`.
///
/// # Safety
/// Tiles are configured.
#[inline]
pub(super) unsafe fn multiply_bytes<const Y: usize, const W: usize, const X: usize>() {
    // SAFETY: the caller's.
    unsafe {
        asm!("tdpbssd tmm{y}, tmm{w}, tmm{x}", y = const Y, w = const W, x = const X,
            options(nostack, preserves_flags));
    }
}

/// Adds the products of pairs of bf16 of tile `W`'s rows with tile `X`'s to tile `Y`, in f32.
///
/// # Safety
/// Tiles are configured.
#[inline]
pub(super) unsafe fn multiply_halves<const Y: usize, const W: usize, const X: usize>() {
    // SAFETY: the caller's.
    unsafe {
        asm!("tdpbf16ps tmm{y}, tmm{w}, tmm{x}", y = const Y, w = const W, x = const X,
            options(nostack, preserves_flags));
    }
}
