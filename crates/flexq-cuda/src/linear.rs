//! Products: `y [m, n] = x [m, k] w^T + bias`.

use crate::config::{self, Activations, Config, Family, Hopper, Problem};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::launch::activations::{Quantize, quantize};
use crate::launch::{address, hopper, size, small, tile, trigger_late};
use crate::operands::{Experts, Operands};
use crate::order;
use crate::prepare::Weight;
use crate::types::{ActivationBits, Dtype};

/// Bytes at the start of a workspace that must be zero before its first use, and are zero again
/// after every product: counters of finished blocks.
pub const COUNTER_BYTES: u64 = 1 << 18;
/// The last counter: which worker comes next. Kernels draw it before earlier ones have ended, so others
/// never touch it.
pub(crate) const TICKET: u64 = COUNTER_BYTES - 4;

/// A dense matrix of rows `stride` elements apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Its address.
    pub address: u64,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Number of rows.
    pub rows: usize,
    /// Elements from one row to the next.
    pub stride: usize,
}

/// Precision of activations, and how many columns share a scale where they are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// 16, 8 or 6 bits.
    pub bits: ActivationBits,
    /// One scale for a row rather than for 128 columns.
    pub per_row: bool,
}

/// Memory a product may use for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// Its address, a multiple of 256. The first [`COUNTER_BYTES`] bytes are zero.
    pub address: u64,
    /// Its size.
    pub bytes: u64,
}

/// A product.
#[derive(Clone, Copy, Debug)]
pub struct Linear<'a> {
    /// The weight.
    pub weight: &'a Weight,
    /// Activations, `[m, k]` in half precision or bfloat16.
    pub x: Matrix,
    /// `[n]`, added to every row of the result.
    pub bias: Option<(u64, Dtype)>,
    /// The result, `[m, n]`, rows one after another; a multiple of 16.
    pub y: (u64, Dtype),
    /// How activations are multiplied.
    pub precision: Precision,
    /// At least [`workspace_bytes`].
    pub workspace: Workspace,
}

impl Linear<'_> {
    fn problem(&self, device: &Device) -> Result<Problem> {
        problem(device, self.weight, &self.x, self.precision)
    }
}

/// Where things are in the workspace, after the counters.
pub(crate) struct Plan {
    /// Quantized activations, if any, and their scales.
    pub codes: u64,
    pub scales: u64,
    pub scale_stride: usize,
    pub partial: u64,
    pub end: u64,
}

impl Plan {
    pub fn new(p: &Problem, partial_bytes: u64) -> Self {
        let up = |bytes: u64| bytes.next_multiple_of(256);
        let (_, k_pad) = order::padded(p.n, p.k);
        let scale_stride = p.m.next_multiple_of(4);
        let (code_bytes, scale_bytes, scale_stride) = match p.activations {
            // tiles read scales past the last row
            Activations::Int8 { per_row: true } => (p.m * k_pad, (scale_stride + 256) * 4, 0),
            Activations::Int8 { per_row: false } => {
                (p.m * k_pad, k_pad / 128 * scale_stride * 4, scale_stride)
            }
            _ => (0, 0, 0),
        };
        let codes = COUNTER_BYTES;
        let scales = codes + up(code_bytes as u64);
        let partial = scales + up(scale_bytes as u64);
        Self { codes, scales, scale_stride, partial, end: partial + up(partial_bytes) }
    }

    /// Quantizes activations into the workspace at `base`: addresses of codes, rows of whole blocks of 128
    /// one after another, and of scales.
    ///
    /// # Safety
    /// As for [`linear`]; the workspace has room for this plan.
    pub unsafe fn quantize(
        &self,
        device: &Device,
        stream: u64,
        x: &Matrix,
        p: &Problem,
        precision: Precision,
        base: u64,
    ) -> Result<(u64, u64)> {
        let (codes, scales) = (base + self.codes, base + self.scales);
        let arguments = Quantize {
            x: address("activations", x.address, 2)?,
            q: codes,
            scales,
            m: size("M", p.m)?,
            k: size("K", p.k)?,
            x_stride: size("row stride", x.stride)?,
            per_row: i32::from(precision.per_row),
            late: trigger_late(),
            limit: precision.bits.limit().unwrap_or_default(),
            x_type: x.dtype as i32,
        };
        // SAFETY: the caller's promise.
        unsafe { quantize(device, stream, &arguments)? };
        Ok((codes, scales))
    }
}

pub(crate) fn problem(device: &Device, weight: &Weight, x: &Matrix, precision: Precision) -> Result<Problem> {
    let activations = match (precision.bits, x.dtype) {
        (_, Dtype::F32) => {
            return Err(Error::Size {
                what: "bits of an activation",
                expected: "16 (float16 or bfloat16)".to_owned(),
                found: 32,
            });
        }
        (ActivationBits::A16, Dtype::F16) => Activations::F16,
        (ActivationBits::A16, Dtype::BF16) => Activations::BF16,
        _ => Activations::Int8 { per_row: precision.per_row },
    };
    if weight.k == 0 {
        return Err(Error::Size { what: "K", expected: "at least 1 on a GPU".to_owned(), found: 0 });
    }
    let quantized = precision.bits != ActivationBits::A16;
    Ok(Problem {
        arch: device.info().arch,
        m: x.rows,
        n: weight.n,
        k: weight.k,
        activations,
        segment: weight.group.segment(),
        aligned: quantized || (x.address.is_multiple_of(16) && x.stride.is_multiple_of(8)),
    })
}

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
