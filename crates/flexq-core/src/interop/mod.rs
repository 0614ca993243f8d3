//! Checkpoints of compressed-tensors: written for tools that read those, and read.
//!
//! Its dense `pack-quantized` layout (since release 0.18) holds the bytes of ours under
//! other names, each row filled up to whole 32-bit words: exporting and importing change
//! no code and no scale. Files that keep 6-bit codes as int8 (`int-quantized`,
//! `naive-quantized`) are imported too and become a quarter smaller.

mod config;
mod error;
mod export;
mod import;

pub use error::InteropError;
pub use export::{ExportReport, export_compressed_tensors};
pub use import::{ImportReport, import_compressed_tensors};
