//! Products by expert: rows of x, sorted by expert, times the weight of theirs.

use crate::config::{Grouped, Problem, Tile};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::launch::{address, blocks, size, small, small_grouped, tile, trigger_late};
use crate::linear::{COUNTER_BYTES, Matrix, Plan, Precision, Workspace, problem};
use crate::order;
use crate::prepare::Weight;
use crate::types::Dtype;

/// A product of rows sorted by expert with the weights of those experts.
#[derive(Clone, Copy, Debug)]
pub struct GroupedLinear<'a> {
    /// The first expert's weight; the others follow it, each as long in codes and in scales.
    pub weight: &'a Weight,
    /// Number of experts.
    pub experts: usize,
    /// Address of `experts` int32 numbers on the GPU: where the rows of each expert end.
    pub ends: u64,
    /// Activations, `[m, k]`.
    pub x: Matrix,
    /// The result, `[m, n]`; rows past the last end are left alone.
    pub y: (u64, Dtype),
    /// How activations are multiplied.
    pub precision: Precision,
    /// At least [`workspace_bytes`].
    pub workspace: Workspace,
}

/// The launch for few rows an expert, where there is one, and the plan of the workspace.
fn plan(p: &Problem, experts: usize) -> (Option<Grouped>, Plan) {
    let few = Grouped::choose(p, experts).filter(|few| few.counters() * 4 <= COUNTER_BYTES);
    let partial = few.map_or(0, |few| few.partial_bytes(p));
    (few, Plan::new(p, partial))
}

/// Bytes of workspace for a product of `m` rows in all.
///
/// # Errors
/// Activations in single precision; a weight without columns.
pub fn workspace_bytes(
    device: &Device,
    weight: &Weight,
    experts: usize,
    m: usize,
    x: Dtype,
    precision: Precision,
) -> Result<u64> {
    let x = Matrix { address: 0, dtype: x, rows: m, stride: weight.k };
    Ok(plan(&problem(device, weight, &x, precision)?, experts).1.end)
}

/// Multiplies rows with the weights of their experts; the host need not know who has how many.
///
/// # Errors
/// As for [`crate::linear::linear`].
///
/// # Safety
/// As for [`crate::linear::linear`].
pub unsafe fn grouped_linear(device: &Device, stream: u64, product: &GroupedLinear<'_>) -> Result<()> {
    let p = problem(device, product.weight, &product.x, product.precision)?;
    let (n, k) = product.weight.check()?;
    let m = size("M", p.m)?;
    if m == 0 || n == 0 || product.experts == 0 {
        return Ok(());
    }
    let (few, plan) = plan(&p, product.experts);
    if plan.end > product.workspace.bytes {
        let expected = format!("at least {} bytes", plan.end);
        return Err(Error::Size { what: "workspace", expected, found: product.workspace.bytes });
    }
    let base = address("workspace", product.workspace.address, 256)?;
    let x = address("activations", product.x.address, 2)?;
    let y = address("output", product.y.0, 16)?;
    let ends = address("ends", product.ends, 4)?;
    let limit = product.precision.bits.limit();
    let fused = few.is_some_and(|few| few.small.options.fused);
    let (x, x_stride, x_scales) = if limit.is_none() || fused {
        (x, product.x.stride, 0)
    } else {
        // SAFETY: the caller's promise; the workspace holds codes and scales by the check above.
        unsafe {
            plan.quantize(device, stream, &Matrix { address: x, ..product.x }, &p, product.precision, base)?
        }
    };
    let (weights, scales) = (product.weight.codes, product.weight.scales);
    let weights_stride = order::weight_bytes(p.n, p.k) as u64;
    let scales_stride = order::scale_count(p.n, p.k, p.segment) as u64;
    let x_stride = size("row stride", x_stride)?;
    let x_scale_stride = size("M", plan.scale_stride)?;
    let scale_type = product.weight.scale_type as i32;
    let (bias, bias_type, y_type) = (0, Dtype::F32 as i32, product.y.1 as i32);
    if let Some(few) = few {
        let c = &few.small;
        let arguments = small_grouped::Arguments {
            product: small::Arguments {
                weights,
                scales,
                x,
                x_scales,
                bias,
                y,
                partial: if c.cluster() > 1 { 0 } else { base + plan.partial },
                arrivals: base,
                m,
                n,
                k,
                x_stride,
                x_scale_stride,
                splits: c.splits as i32,
                split_blocks: c.split_blocks as i32,
                strips: c.strips as i32,
                longer: c.longer as i32,
                stages: c.stages as i32,
                per_row: i32::from(product.precision.per_row),
                late: trigger_late(),
                limit: limit.unwrap_or_default(),
                x_type: product.x.dtype as i32,
                scale_type,
                bias_type,
                y_type,
            },
            ends,
            weights_stride,
            scales_stride,
            experts: size("experts", product.experts)?,
            blocks: c.grid as i32,
        };
        // SAFETY: the caller's promise.
        return unsafe { small_grouped::run(device, stream, &few, p.activations, p.segment, &arguments) };
    }
    let arguments = tile::Arguments {
        weights,
        scales,
        x,
        x_scales,
        bias,
        y,
        partial: 0,
        arrivals: base,
        ends,
        weights_stride,
        scales_stride,
        m,
        n,
        k,
        x_stride,
        x_scale_stride,
        splits: 1,
        split_blocks: size("K", p.k.div_ceil(order::TILE_COLUMNS))?,
        scale_type,
        bias_type,
        y_type,
    };
    let grid = blocks("experts", (p.n.div_ceil(Tile::COLUMNS) * product.experts) as u64, 1)?;
    // SAFETY: the caller's promise.
    unsafe { tile::run(device, stream, grid, p.activations, p.segment, &arguments) }
}
