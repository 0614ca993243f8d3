//! Products: `y [m, n] = x [m, k] w^T + bias`.

use crate::config::{self, Config, Family, Hopper, Problem};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::launch::{hopper, small, tile};
use crate::operands::{Experts, Operands};
use crate::prepare::Weight;
use crate::product::problem;
use crate::types::Dtype;
use crate::workspace::{Plan, TICKET};

pub use crate::product::{Linear, Matrix, Precision, Workspace};
pub use crate::workspace::COUNTER_BYTES;

/// Bytes of workspace for products with up to `m` rows, whatever kernel they get.
///
/// # Errors
/// Activations in single precision; a weight without columns.
pub fn workspace_bytes(
    device: &Device,
    weight: &Weight,
    m: usize,
    x: Dtype,
    precision: Precision,
) -> Result<u64> {
    let mut most = COUNTER_BYTES;
    // The need grows with m inside a family of many rows; for few rows each m is a case of its own.
    let few = 1..=m.min(32);
    for aligned in [true, false] {
        for rows in few.clone().chain([m.min(64), m.min(128), m.min(256), m.min(1024), m]) {
            let x = Matrix { address: 0, dtype: x, rows, stride: weight.k };
            let p = Problem { aligned, ..problem(device, weight, &x, precision)? };
            let partial = match config::choose(&p) {
                Config::Hopper(_) => Hopper::most_partial_bytes(&p, rows),
                config => config.partial_bytes(&p),
            };
            most = most.max(Plan::new(&Problem { m, ..p }, partial).end);
        }
    }
    Ok(most)
}

/// The kernel this product gets, by [`config::choose`] or as asked for; see [`Config::requested`].
///
/// # Errors
/// Activations in single precision; a weight without columns; a request that cannot be met.
pub fn choice(
    device: &Device,
    weight: &Weight,
    x: &Matrix,
    precision: Precision,
    request: Option<&str>,
) -> Result<Config> {
    let p = problem(device, weight, x, precision)?;
    request.map_or_else(|| Ok(config::choose(&p)), |text| Config::requested(text, &p))
}

/// Bytes of workspace for a product with one kernel.
///
/// # Errors
/// Activations in single precision; a weight without columns.
pub fn workspace_bytes_with(
    device: &Device,
    weight: &Weight,
    x: &Matrix,
    precision: Precision,
    config: &Config,
) -> Result<u64> {
    let p = problem(device, weight, x, precision)?;
    Ok(Plan::new(&p, config.partial_bytes(&p)).end)
}

/// Multiplies, with the kernel of [`config::choose`].
///
/// # Errors
/// Sizes, addresses or a workspace that do not fit, or a failure of the driver.
///
/// # Safety
/// Every address names memory of this GPU of the size that shapes and types imply, valid until the
/// work on `stream` is done; the output and the workspace overlap nothing else, and nothing
/// else uses the workspace until then.
pub unsafe fn linear(device: &Device, stream: u64, product: &Linear<'_>) -> Result<()> {
    let config = config::choose(&product.problem(device)?);
    // SAFETY: the caller's promise.
    unsafe { linear_with(device, stream, product, &config) }
}

/// Multiplies with a kernel chosen by hand.
///
/// # Errors
/// As for [`linear`].
///
/// # Safety
/// As for [`linear`]; `config` was made for this problem.
pub unsafe fn linear_with(device: &Device, stream: u64, product: &Linear<'_>, config: &Config) -> Result<()> {
    let p = product.problem(device)?;
    product.weight.check()?;
    if p.is_empty() {
        return Ok(());
    }
    if config.counters() * 4 > TICKET {
        let reason = "it needs more counters than a workspace has".to_owned();
        return Err(Error::Config { config: config.to_string(), reason });
    }
    let plan = Plan::new(&p, config.partial_bytes(&p));
    let fused = matches!(config, Config::Small(c) if c.options.fused);
    // SAFETY: the caller's promise.
    let operands = unsafe { Operands::new(device, stream, product, &p, &plan, fused)? };
    let (kind, segment) = (p.activations, p.segment);
    // SAFETY: the caller's promise.
    unsafe {
        match config {
            Config::Small(c) if c.options.family == Family::Teams => {
                small::run(device, stream, c, kind, segment, &operands.teams(device, c)?)
            }
            Config::Small(c) => small::run(device, stream, c, kind, segment, &operands.small(c)),
            Config::Tile(c) => {
                tile::run(device, stream, c.grid, kind, segment, &operands.tile(c, Experts::default()))
            }
            Config::Hopper(c) => hopper::run(device, stream, c, kind, &operands.hopper(device, c)?),
        }
    }
}
