//! 6-bit language model weights: quantize, pack, store, multiply.
//!
//! Data flows one way: checkpoint reader -> quantizer -> packer -> writer, and
//! file -> [`QTensor`] -> backend -> output. This crate knows neither CUDA nor
//! Python.

pub mod bytes;
pub mod dtype;
pub mod error;
pub mod layout;
pub mod qtensor;
pub mod rows;
pub mod scheme;

pub use bytes::SharedBytes;
pub use dtype::FloatType;
pub use error::{Error, Result};
pub use qtensor::QTensor;
pub use rows::{FloatRows, FloatRowsMut};
pub use scheme::{Group, ScaleRule, ScaleType, Scheme};
