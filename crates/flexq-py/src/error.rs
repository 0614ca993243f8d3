//! Every failure as the fitting Python exception.

use std::io::ErrorKind;
use std::path::Path;

use flexq_core::Error;
use pyo3::exceptions::{PyFileNotFoundError, PyIndexError, PyOSError, PyValueError};
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

impl PyError {
    /// A fault of a file, or of the plan for one.
    pub fn in_file(path: &Path, fault: flexq_core::format::FormatError) -> Self {
        Self(fault.at(path))
    }
}

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
            Error::NoRow { .. } => PyIndexError::new_err(message),
            Error::Format { .. } | Error::Checkpoint { .. } => FormatError::new_err(message),
            // with errno Python picks the subclass: FileNotFoundError, PermissionError, ...
            Error::Io { action, source, path } => match source.raw_os_error() {
                Some(errno) => {
                    let source = source.to_string();
                    let reason = source.split(" (os error").next().unwrap_or(&source);
                    PyOSError::new_err((errno, format!("cannot {action}: {reason}"), path.into_os_string()))
                }
                None if source.kind() == ErrorKind::NotFound => PyFileNotFoundError::new_err(message),
                None => PyOSError::new_err(message),
            },
            _ => PyValueError::new_err(message),
        }
    }
}
