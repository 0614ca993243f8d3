//! The tensors of a model from its configuration alone, for the families of Llama.

mod error;
mod family;
mod shapes;

pub use error::PlanError;
pub use shapes::{TensorShape, tensors_of};
