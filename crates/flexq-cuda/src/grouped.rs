//! Products by expert: rows of x, sorted by expert, times the weight of theirs.

use crate::config::{Grouped, Problem, Tile};
use crate::device::Device;
use crate::error::Result;
use crate::launch::{address, blocks, size, small_grouped, tile};
use crate::operands::{Experts, Operands};
use crate::order;
use crate::prepare::Weight;
use crate::product::{Linear, Matrix, Precision, Workspace, problem};
use crate::types::Dtype;
use crate::workspace::{COUNTER_BYTES, Plan};

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
    product.weight.check()?;
    if p.is_empty() || product.experts == 0 {
        return Ok(());
    }
    let (few, plan) = plan(&p, product.experts);
    let experts = Experts {
        ends: address("ends", product.ends, 4)?,
        weights_stride: order::weight_bytes(p.n, p.k) as u64,
        scales_stride: order::scale_count(p.n, p.k, p.segment) as u64,
    };
    let GroupedLinear { weight, x, y, precision, workspace, .. } = *product;
    let one = Linear { weight, x, bias: None, y, precision, workspace };
    let fused = few.is_some_and(|few| few.small.options.fused);
    // SAFETY: the caller's promise.
    let operands = unsafe { Operands::new(device, stream, &one, &p, &plan, fused)? };
    if let Some(few) = few {
        let arguments = small_grouped::Arguments {
            product: operands.small(&few.small),
            ends: experts.ends,
            weights_stride: experts.weights_stride,
            scales_stride: experts.scales_stride,
            experts: size("experts", product.experts)?,
            blocks: few.small.grid as i32,
        };
        // SAFETY: the caller's promise.
        return unsafe { small_grouped::run(device, stream, &few, p.activations, p.segment, &arguments) };
    }
    let grid = blocks("experts", (p.n.div_ceil(Tile::COLUMNS) * product.experts) as u64, 1)?;
    let tile = Tile { grid, ..Tile::with_splits(&p, 1) };
    // SAFETY: the caller's promise.
    unsafe { tile::run(device, stream, grid, p.activations, p.segment, &operands.tile(&tile, experts)) }
}
