//! Products on packed 6-bit weights on NVIDIA GPUs, from Ampere on.
//!
//! The crate launches kernels on memory and streams that somebody else owns: addresses and
//! sizes go in, nothing is allocated, synchronised or read back. What it needs from the
//! outside is the NVIDIA driver, opened when first asked for; a missing or old one is an
//! ordinary [`Error`]. The kernels are embedded as PTX, which the driver compiles once.
//!
//! | module | what |
//! | --- | --- |
//! | [`device`] | finding GPUs; per GPU, the primary context and its loaded kernels |
//! | [`order`] | the order of weights that kernels read, as pure functions |
//! | [`config`] | which kernel a problem gets, as a pure function |
//! | [`linear`], [`grouped`], [`prepare`] | checked launches |
//! | [`memory`] | owned device memory, for callers that have none |
//!
//! Weights are put into device order once, by [`prepare::repack`]; after that
//! [`linear::linear`] multiplies them with 16-bit activations, quantized on the way if asked.

pub mod config;
pub mod device;
mod driver;
mod error;
pub mod grouped;
mod kernels;
mod launch;
pub mod linear;
pub mod memory;
mod operands;
pub mod order;
pub mod prepare;
mod product;
mod types;
mod workspace;

pub use error::{Error, Result};
pub use launch::hopper::set_exact_sums;
pub use launch::set_trigger_late;
pub use types::{ActivationBits, Dtype, Group, ScaleType};
