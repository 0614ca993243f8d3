//! Why a conversion is refused before or while it runs.

/// One refusal. [`crate::Error::Pipeline`] adds the path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// Output onto the input.
    #[error("output and input are the same")]
    OutputIsInput,
    /// Output among the files of the input.
    #[error("output lies inside the input directory {input:?}")]
    OutputInsideInput {
        /// The input.
        input: String,
    },
    /// Output around the input.
    #[error("output directory contains the input {input:?}")]
    InputInsideOutput {
        /// The input.
        input: String,
    },
    /// Something is there that no unfinished run left.
    #[error("output exists already; remove it, choose another or allow replacing it (force)")]
    OutputExists,
    /// A file where a directory must go, or the reverse.
    #[error("output is a {found}, but the input is a {expected}")]
    OutputKind {
        /// What the input is.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// An unfinished run of other options or of another input.
    #[error(
        "output holds an unfinished run with other options or of a changed input; repeat those, or allow starting over (force)"
    )]
    OtherRun,
    /// A checkpoint that is quantized already.
    #[error("checkpoint is already quantized ({method})")]
    Quantized {
        /// Its `quant_method`.
        method: String,
    },
    /// A checkpoint that is not in the format of flexq.
    #[error("checkpoint is not in the format of flexq")]
    NotFlexq,
    /// No tensor to quantize.
    #[error("no tensor to quantize: {reasons}")]
    Nothing {
        /// How many tensors stay, and why.
        reasons: String,
    },
    /// Files under one name, one of which would be lost.
    #[error("two tensors would be stored as {name:?}")]
    NameClash {
        /// The name.
        name: String,
    },
    /// A policy file that is none.
    #[error("not a policy: {message}")]
    Policy {
        /// What is wrong.
        message: String,
    },
}

impl PipelineError {
    /// Whether other arguments would help, rather than another checkpoint.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::OutputIsInput
                | Self::OutputInsideInput { .. }
                | Self::InputInsideOutput { .. }
                | Self::OutputExists
                | Self::OutputKind { .. }
                | Self::OtherRun
                | Self::Nothing { .. }
                | Self::Policy { .. }
        )
    }
}
