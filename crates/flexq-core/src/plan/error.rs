//! Why a configuration does not tell the tensors of its model.

/// One fault of a configuration given to [`super::tensors_of`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A model type whose tensors are not known here.
    #[error(
        "model type {found:?} is not among those whose tensors follow from config.json ({expected}); give the directory with its weights instead"
    )]
    ModelType {
        /// The type; empty when there is none.
        found: String,
        /// The types known.
        expected: String,
    },
    /// A field that is missing or of the wrong kind.
    #[error("field {field:?} is {found}, expected {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// A model beyond what any machine holds.
    #[error("field {field:?} is {found}, beyond the limit of {limit}")]
    Limit {
        /// The field.
        field: &'static str,
        /// Its value.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A model that is quantized already.
    #[error("the model is already quantized ({method})")]
    Quantized {
        /// Its `quant_method`.
        method: String,
    },
}
