//! 6-bit language model weights: quantize, pack, store, multiply.
//!
//! Data flows one way: checkpoint reader -> quantizer -> packer -> writer, and
//! file -> [`QTensor`] -> backend -> output. This crate knows neither CUDA nor
//! Python.

pub mod activations;
pub mod arch;
pub mod backend;
pub mod bytes;
pub mod checkpoint;
pub mod dequantize;
pub mod dtype;
pub mod error;
pub mod format;
pub mod inspect;
pub mod interop;
pub mod layout;
pub mod matmul;
pub mod mmap;
pub mod pipeline;
pub mod plan;
pub mod qtensor;
pub mod quantize;
pub mod report;
pub mod rows;
pub mod scheme;
pub mod select;
pub mod threads;
pub mod verify;

pub use activations::{ActivationBits, ActivationGroup};
pub use arch::Isa;
pub use backend::Cpu;
pub use bytes::SharedBytes;
pub use dequantize::{dequantize, dequantize_rows, gather, unpack_codes};
pub use dtype::FloatType;
pub use error::{Error, Result};
pub use matmul::{MatmulOptions, matmul};
pub use qtensor::QTensor;
pub use quantize::{pack_codes, quantize, quantize_rows};
pub use rows::{FloatRows, FloatRowsMut};
pub use scheme::{Group, ScaleRule, ScaleType, Scheme};
pub use threads::Threads;
