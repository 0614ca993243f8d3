//! From canonical bytes to device order and back, and from device order to numbers.
//!
//! Each function launches on the caller's stream, into the caller's memory, and returns.

use crate::device::Device;
use crate::error::Result;
use crate::launch::order::{Dequantize, Gather, Repack, RepackScales, Restore, run};
use crate::launch::{address, blocks, size};
use crate::order;
use crate::types::{Dtype, Group, ScaleType};

/// A weight `[n, k]` in device order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Address of [`order::weight_bytes`] bytes; a multiple of 16.
    pub codes: u64,
    /// Address of [`order::scale_count`] scales; a multiple of 16.
    pub scales: u64,
    /// Their type.
    pub scale_type: ScaleType,
    /// Rows.
    pub n: usize,
    /// Columns.
    pub k: usize,
    /// Columns that share a scale.
    pub group: Group,
}

impl Weight {
    pub(crate) fn check(&self) -> Result<(i32, i32)> {
        if self.n > 0 && self.k > 0 {
            address("weights", self.codes, 16)?;
            address("scales", self.scales, 16)?;
        }
        Ok((size("N", self.n)?, size("K", self.k)?))
    }
}

/// A weight as files store it: `packed [n, ceil(6 k / 8)]`, `scales [n, groups]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canonical {
    /// Address of the codes.
    pub packed: u64,
    /// Address of the scales.
    pub scales: u64,
}

/// Puts a weight into device order.
///
/// # Errors
/// Null or misaligned addresses, sizes beyond the kernels, or a failure of the driver.
///
/// # Safety
/// The addresses name memory of this GPU of the sizes that `to` implies, valid until the work on
/// `stream` is done; the canonical and the reordered memory do not overlap.
pub unsafe fn repack(device: &Device, stream: u64, from: Canonical, to: &Weight) -> Result<()> {
    let (n, k) = to.check()?;
    if n == 0 || k == 0 {
        return Ok(());
    }
    let codes = Repack {
        packed: address("packed", from.packed, 1)?,
        weights: to.codes,
        row_bytes: (to.k * 6).div_ceil(8) as u64,
        n,
        k,
    };
    // A thread per three words.
    let grid = blocks("weights", order::weight_bytes(to.n, to.k) as u64 / 12, 256)?;
    // SAFETY: the caller's promise.
    unsafe { run(device, grid, stream, &codes)? };
    let segment = to.group.segment();
    let scales = RepackScales {
        scales: address("canonical scales", from.scales, 2)?,
        out: to.scales,
        n,
        k,
        groups: size("groups", to.group.count(to.k))?,
        group: size("group", to.group.width(to.k))?,
        segment: size("segment", segment)?,
    };
    let grid = blocks("scales", order::scale_count(to.n, to.k, segment) as u64, 256)?;
    // SAFETY: the caller's promise.
    unsafe { run(device, grid, stream, &scales) }
}

/// Puts a weight back into canonical order.
///
/// # Errors
/// As for [`repack`].
///
/// # Safety
/// As for [`repack`].
pub unsafe fn restore(device: &Device, stream: u64, from: &Weight, to: Canonical) -> Result<()> {
    let (n, k) = from.check()?;
    if n == 0 || k == 0 {
        return Ok(());
    }
    let groups = from.group.count(from.k);
    let arguments = Restore {
        weights: from.codes,
        scales: from.scales,
        packed: address("packed", to.packed, 1)?,
        out_scales: address("canonical scales", to.scales, 2)?,
        row_bytes: (from.k * 6).div_ceil(8) as u64,
        n,
        k,
        groups: size("groups", groups)?,
        group: size("group", from.group.width(from.k))?,
        segment: size("segment", from.group.segment())?,
    };
    let items = from.n as u64 * (from.k.div_ceil(4) + groups) as u64;
    // SAFETY: the caller's promise.
    unsafe { run(device, blocks("weights", items, 256)?, stream, &arguments) }
}

/// Writes the weight as numbers, `[n, k]` of type `dtype` at `y`, a multiple of 16.
///
/// # Errors
/// As for [`repack`].
///
/// # Safety
/// As for [`repack`].
pub unsafe fn dequantize(device: &Device, stream: u64, weight: &Weight, y: u64, dtype: Dtype) -> Result<()> {
    let (n, k) = weight.check()?;
    if n == 0 || k == 0 {
        return Ok(());
    }
    let arguments = Dequantize {
        weights: weight.codes,
        scales: weight.scales,
        y: address("output", y, 16)?,
        n,
        k,
        segment: size("segment", weight.group.segment())?,
        scale_type: weight.scale_type as i32,
        y_type: dtype as i32,
    };
    // A thread per three words.
    let grid = blocks("weights", order::weight_bytes(weight.n, weight.k) as u64 / 12, 256)?;
    // SAFETY: the caller's promise.
    unsafe { run(device, grid, stream, &arguments) }
}

/// Writes rows of the weight as numbers: `rows` is the address of `count` int64 numbers on the GPU,
/// `y` that of `[count, k]`, a multiple of 16. A row that the weight does not have comes out as NaN.
///
/// # Errors
/// As for [`repack`].
///
/// # Safety
/// As for [`repack`].
pub unsafe fn gather(
    device: &Device,
    stream: u64,
    weight: &Weight,
    (rows, count): (u64, usize),
    y: u64,
    dtype: Dtype,
) -> Result<()> {
    let (n, k) = weight.check()?;
    if count == 0 || k == 0 {
        return Ok(());
    }
    let arguments = Gather {
        weights: weight.codes,
        scales: weight.scales,
        rows: address("rows", rows, 8)?,
        y: address("output", y, 16)?,
        n,
        k,
        segment: size("segment", weight.group.segment())?,
        count: size("rows", count)?,
        scale_type: weight.scale_type as i32,
        y_type: dtype as i32,
    };
    // A thread per eight columns of whole blocks of 128; the kernel counts them in 32 bits.
    let threads = size("threads for rows", count * weight.k.div_ceil(128) * 16)?;
    let grid = blocks("rows", threads as u64, 256)?;
    // SAFETY: the caller's promise.
    unsafe { run(device, grid, stream, &arguments) }
}
