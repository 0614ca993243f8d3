//! The instructions, which Rust does not offer yet, as functions.
//!
//! Tiles 0 to 3 hold integer sums, 4 and 5 codes of weights, 6 and 7 codes of activations.
//! The compiler knows nothing of tiles and keeps nothing in them; the order of these
//! instructions among each other is kept because each may touch memory.

use std::arch::asm;

/// Rows of a tile.
const ROWS: u8 = 16;
/// Bytes of a row of sums or activations.
const BYTES: u16 = 64;

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
    /// Tiles for steps of `columns` columns, which are 64, 32 or 16.
    ///
    /// # Safety
    /// The thread may use tiles.
    pub unsafe fn new(columns: u16) -> Self {
        let mut shapes =
            Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        shapes.row_bytes[..8].fill(BYTES);
        shapes.row_bytes[4..6].fill(columns);
        shapes.rows[..6].fill(ROWS);
        shapes.rows[6..8].fill((columns / 4) as u8);
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

/// Sets the sums to zero.
///
/// # Safety
/// Tiles are configured.
#[inline]
pub(super) unsafe fn clear() {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            options(nomem, nostack, preserves_flags)
        );
    }
}

/// Stores the sums of tile `T`.
///
/// # Safety
/// Tiles are configured and `sums` points to 256 integers.
#[inline]
pub(super) unsafe fn store<const T: usize>(sums: *mut i32) {
    // SAFETY: the caller's.
    unsafe {
        asm!("tilestored [{sums} + {stride}*1], tmm{t}", t = const T, sums = in(reg) sums,
            stride = in(reg) 64usize, options(nostack, preserves_flags));
    }
}

/// Adds the products of one step of columns to the sums: `G` groups of weight rows, tiles
/// from `w` on `w_next` bytes apart, with `B` blocks of activations, tiles from `x` on
/// `x_next` bytes apart. Group `g` and block `b` meet in tile `2 g + b`.
///
/// # Safety
/// Tiles are configured; the pointers lead to `G` and `B` tiles whose rows lie 64 bytes apart.
#[inline]
pub(super) unsafe fn multiply<const G: usize, const B: usize>(
    w: *const u8,
    w_next: usize,
    x: *const i8,
    x_next: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        match (G, B) {
            (1, 1) => asm!(
                "tileloadd tmm4, [{w} + {line}*1]",
                "tileloadd tmm6, [{x} + {line}*1]",
                "tdpbssd tmm0, tmm4, tmm6",
                w = in(reg) w, x = in(reg) x, line = in(reg) 64usize,
                options(nostack, preserves_flags, readonly)
            ),
            (2, 1) => asm!(
                "tileloadd tmm6, [{x} + {line}*1]",
                "tileloadd tmm4, [{w} + {line}*1]",
                "tileloadd tmm5, [{w1} + {line}*1]",
                "tdpbssd tmm0, tmm4, tmm6",
                "tdpbssd tmm2, tmm5, tmm6",
                w = in(reg) w, w1 = in(reg) w.wrapping_add(w_next), x = in(reg) x, line = in(reg) 64usize,
                options(nostack, preserves_flags, readonly)
            ),
            (1, 2) => asm!(
                "tileloadd tmm4, [{w} + {line}*1]",
                "tileloadd tmm6, [{x} + {line}*1]",
                "tileloadd tmm7, [{x1} + {line}*1]",
                "tdpbssd tmm0, tmm4, tmm6",
                "tdpbssd tmm1, tmm4, tmm7",
                w = in(reg) w, x = in(reg) x, x1 = in(reg) x.wrapping_add(x_next), line = in(reg) 64usize,
                options(nostack, preserves_flags, readonly)
            ),
            _ => asm!(
                "tileloadd tmm4, [{w} + {line}*1]",
                "tileloadd tmm6, [{x} + {line}*1]",
                "tdpbssd tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{x1} + {line}*1]",
                "tdpbssd tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{w1} + {line}*1]",
                "tdpbssd tmm2, tmm5, tmm6",
                "tdpbssd tmm3, tmm5, tmm7",
                w = in(reg) w, w1 = in(reg) w.wrapping_add(w_next),
                x = in(reg) x, x1 = in(reg) x.wrapping_add(x_next), line = in(reg) 64usize,
                options(nostack, preserves_flags, readonly)
            ),
        }
    }
}
