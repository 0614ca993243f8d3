//! Every failure as the fitting Python exception.

use flexq_core::Error;
use pyo3::exceptions::PyValueError;
use pyo3::{PyErr, create_exception};

create_exception!(
    flexq,
    FormatError,
    PyValueError,
    "A file that is not what it should be: malformed, damaged or of an unknown version."
);
create_exception!(
    flexq,
    NonFiniteError,
    PyValueError,
    "A NaN or an infinity among weights to be quantized; the message names row and column."
);

/// [`Error`] on its way to Python.
pub struct PyError(Error);

impl From<Error> for PyError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<PyError> for PyErr {
    fn from(PyError(error): PyError) -> Self {
        let message = error.to_string();
        match error {
            Error::NonFinite { .. } => NonFiniteError::new_err(message),
            _ => PyValueError::new_err(message),
        }
    }
}
