//! 6-bit language model weights: quantize, pack, store, multiply.
//!
//! Data flows one way: checkpoint reader -> quantizer -> packer -> writer, and
//! file -> [`QTensor`] -> backend -> output. This crate knows neither CUDA nor
//! Python.
//!
//! ```
//! use flexq_core::format::{Description, File, Plan, Writer};
//! use flexq_core::{FloatRows, FloatRowsMut, FloatType, MatmulOptions, Scheme, Threads, matmul, quantize};
//!
//! // a weight of 3 rows and 256 columns, in single precision
//! let w: Vec<u8> = (0..768).flat_map(|i| ((i % 13) as f32 - 6.0).to_le_bytes()).collect();
//! let w = FloatRows::new(&w, FloatType::F32, 3, 256)?;
//! let q = quantize(&w, &[3, 256], &Scheme::default(), Threads::ONE)?;
//! assert_eq!(q.nbytes(), 3 * (256 * 6 / 8 + 2 * 2)); // six bits a weight, a scale per 128
//!
//! // x [1, 256] times the transpose of the weight
//! let x: Vec<u8> = (0..256).flat_map(|_| 1.0f32.to_le_bytes()).collect();
//! let x = FloatRows::new(&x, FloatType::F32, 1, 256)?;
//! let mut y = [0; 12];
//! matmul(&x, &q, &MatmulOptions::default(), &mut FloatRowsMut::new(&mut y, FloatType::F32, 1, 3)?)?;
//!
//! // into a file, and out of it without copying
//! let path = std::env::temp_dir().join("flexq-core-example.safetensors");
//! let mut plan = Plan::new();
//! let description = Description { shape: vec![3, 256], origin: FloatType::F32, scheme: q.scheme() };
//! let (codes, scales) = plan.add_quantized("w", description)?;
//! let writer = Writer::create(&path, plan)?;
//! writer.write(codes, q.packed())?;
//! writer.write(scales, q.scales())?;
//! writer.finish()?;
//! assert_eq!(File::open(&path)?.qtensor("w")?.packed()[..], q.packed()[..]);
//! # std::fs::remove_file(&path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Whole checkpoints go through [`pipeline`]; [`inspect`] and [`verify`] look at them.

#![cfg_attr(
    not(target_arch = "x86_64"),
    allow(
        dead_code,
        unused_imports,
        clippy::unused_self,
        reason = "some things only the sets of kernels for x86-64 use"
    )
)]

pub mod activations;
pub mod arch;
pub mod backend;
pub mod bytes;
pub mod checkpoint;
pub mod dequantize;
mod digits;
pub mod dtype;
pub mod error;
pub mod format;
pub mod inspect;
pub mod interop;
pub mod layout;
pub mod matmul;
pub mod mmap;
pub mod pair;
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
pub use threads::{Team, Threads};
