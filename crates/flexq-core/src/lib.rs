//! 6-bit language model weights: quantize, pack, store, multiply.
//!
//! Data flows one way: checkpoint reader -> quantizer -> packer -> writer, and
//! file -> [`QTensor`] -> backend -> output. This crate knows neither CUDA nor
//! Python.

pub mod bytes;
pub mod checkpoint;
pub mod dtype;
pub mod error;
pub mod format;
pub mod layout;
pub mod mmap;
pub mod pipeline;
pub mod plan;
pub mod qtensor;
pub mod rows;
pub mod scheme;
pub mod select;
pub mod verify;

pub use bytes::SharedBytes;
pub use dtype::FloatType;
pub use error::{Error, Result};
pub use qtensor::QTensor;
pub use rows::{FloatRows, FloatRowsMut};
pub use scheme::{Group, ScaleRule, ScaleType, Scheme};
