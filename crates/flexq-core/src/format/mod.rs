//! The file: safetensors with a manifest. `docs/format.md` is its definition.
//!
//! [`File`] opens any safetensors file, ours or not, and trusts nothing in it.
//! [`Writer`] makes one from a [`Plan`], atomically.

mod dtype;
mod error;
mod header;
mod json;
mod manifest;
mod plan;
mod reader;
mod temporary;
mod writer;

pub use dtype::Dtype;
pub use error::{Document, FormatError};
pub use header::{Entry, MAX_HEADER, MAX_RANK};
pub use manifest::{Description, KEY, Manifest, VERSION, packed_name, scale_name};
pub use plan::{EntryId, Plan};
pub use reader::File;
pub use temporary::TEMPORARY_MARK;
pub use writer::Writer;
