//! A product as every family of kernels is told of it.

use crate::config::{Activations, Hopper, Problem, Small, Tile};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::launch::{address, hopper, size, small, tile, trigger_late};
use crate::order;
use crate::product::Linear;
use crate::types::Dtype;
use crate::workspace::{Plan, TICKET};

/// Checked addresses, sizes and types of a product whose activations are there as kernels read them.
pub struct Operands {
    activations: Activations,
    weights: u64,
    scales: u64,
    /// Rows of activations or of their codes: the address, rows, columns, elements from row to row.
    x: (u64, usize, usize, usize),
    x_scales: u64,
    x_scale_stride: i32,
    bias: u64,
    y: u64,
    /// The workspace.
    base: u64,
    partial: u64,
    m: i32,
    n: i32,
    k: i32,
    x_stride: i32,
    per_row: i32,
    limit: f32,
    x_type: i32,
    scale_type: i32,
    bias_type: i32,
    y_type: i32,
}

/// Where weights of experts are: the address of the ends of their rows, and from one expert to the
/// next the bytes of codes and the number of scales.
#[derive(Clone, Copy, Default)]
pub struct Experts {
    pub ends: u64,
    pub weights_stride: u64,
    pub scales_stride: u64,
}

impl Operands {
    /// Checks a product and quantizes its activations, unless the kernel does that itself (`fused`).
    ///
    /// # Errors
    /// Sizes, addresses or a workspace that do not fit, or a failure of the driver.
    ///
    /// # Safety
    /// As for [`crate::linear::linear`].
    pub unsafe fn new(
        device: &Device,
        stream: u64,
        product: &Linear<'_>,
        p: &Problem,
        plan: &Plan,
        fused: bool,
    ) -> Result<Self> {
        let (n, k) = product.weight.check()?;
        if plan.end > product.workspace.bytes {
            let expected = format!("at least {} bytes", plan.end);
            return Err(Error::Size { what: "workspace", expected, found: product.workspace.bytes });
        }
        let base = address("workspace", product.workspace.address, 256)?;
        address("activations", product.x.address, 2)?;
        let y = address("output", product.y.0, 16)?;
        let (bias, bias_type) = match product.bias {
            Some((bias, dtype)) => (address("bias", bias, dtype.size())?, dtype),
            None => (0, Dtype::F32),
        };
        let limit = product.precision.bits.limit();
        let (x, columns, x_stride, x_scales) = if limit.is_none() || fused {
            (product.x.address, p.k, product.x.stride, 0)
        } else {
            // SAFETY: the caller's promise; the workspace holds codes and scales by the check above.
            let (codes, scales) =
                unsafe { plan.quantize(device, stream, &product.x, p, product.precision, base)? };
            let (_, k_pad) = order::padded(p.n, p.k);
            (codes, k_pad, k_pad, scales)
        };
        Ok(Self {
            activations: p.activations,
            weights: product.weight.codes,
            scales: product.weight.scales,
            x: (x, p.m, columns, x_stride),
            x_scales,
            x_scale_stride: size("M", plan.scale_stride)?,
            bias,
            y,
            base,
            partial: base + plan.partial,
            m: size("M", p.m)?,
            n,
            k,
            x_stride: size("row stride", x_stride)?,
            per_row: i32::from(product.precision.per_row),
            limit: limit.unwrap_or_default(),
            x_type: product.x.dtype as i32,
            scale_type: product.weight.scale_type as i32,
            bias_type: bias_type as i32,
            y_type: product.y.1 as i32,
        })
    }

    /// For kernels of few rows.
    pub fn small(&self, c: &Small) -> small::Arguments {
        small::Arguments {
            weights: self.weights,
            scales: self.scales,
            x: self.x.0,
            x_scales: self.x_scales,
            bias: self.bias,
            y: self.y,
            partial: if c.cluster() > 1 { 0 } else { self.partial },
            arrivals: self.base,
            m: self.m,
            n: self.n,
            k: self.k,
            x_stride: self.x_stride,
            x_scale_stride: self.x_scale_stride,
            splits: c.splits as i32,
            split_blocks: c.split_blocks as i32,
            strips: c.strips as i32,
            longer: c.longer as i32,
            stages: c.stages as i32,
            per_row: self.per_row,
            late: trigger_late(),
            limit: self.limit,
            x_type: self.x_type,
            scale_type: self.scale_type,
            bias_type: self.bias_type,
            y_type: self.y_type,
        }
    }

    /// For kernels of few rows whose warps form teams.
    ///
    /// # Errors
    /// Activations that a tensor map cannot describe.
    pub fn teams(&self, device: &Device, c: &Small) -> Result<small::TeamArguments> {
        Ok(small::TeamArguments {
            x: self.tensor_map(device, c.rows)?,
            rest: self.small(c),
            x_stages: c.x_stages as i32,
        })
    }

    /// For the tiles that every card can multiply.
    pub fn tile(&self, c: &Tile, experts: Experts) -> tile::Arguments {
        tile::Arguments {
            weights: self.weights,
            scales: self.scales,
            x: self.x.0,
            x_scales: self.x_scales,
            bias: self.bias,
            y: self.y,
            partial: self.partial,
            arrivals: self.base,
            ends: experts.ends,
            weights_stride: experts.weights_stride,
            scales_stride: experts.scales_stride,
            m: self.m,
            n: self.n,
            k: self.k,
            x_stride: self.x_stride,
            x_scale_stride: self.x_scale_stride,
            splits: c.splits as i32,
            split_blocks: c.split_blocks as i32,
            scale_type: self.scale_type,
            bias_type: self.bias_type,
            y_type: self.y_type,
        }
    }

    /// For warp groups.
    ///
    /// # Errors
    /// As for [`Self::teams`].
    pub fn hopper(&self, device: &Device, c: &Hopper) -> Result<hopper::Arguments> {
        let (sharers, share, extra) = c.ranges((self.k as usize).div_ceil(order::TILE_COLUMNS) as u32);
        Ok(hopper::Arguments {
            x: self.tensor_map(device, c.rows / c.cluster)?,
            weights: self.weights,
            scales: self.scales,
            x_scales: self.x_scales,
            bias: self.bias,
            y: self.y,
            partial: self.partial,
            arrivals: self.base,
            ticket: self.base + TICKET,
            m: self.m,
            n: self.n,
            k: self.k,
            split_tiles: c.split_tiles as i32,
            sharers: sharers as i32,
            share: share as i32,
            extra: extra as i32,
            splits: c.splits as i32,
            raster: c.raster as i32,
            late: trigger_late(),
            scale_type: self.scale_type,
            bias_type: self.bias_type,
            y_type: self.y_type,
        })
    }

    fn tensor_map(&self, device: &Device, rows: u32) -> Result<hopper::TensorMap> {
        let (x, m, columns, stride) = self.x;
        hopper::tensor_map(device, self.activations, x, (m, columns, stride), rows)
    }
}
