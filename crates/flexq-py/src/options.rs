//! Options as Python spells them.

use flexq_core::{FloatType, Group, ScaleType};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::array;
use crate::error::PyError;

/// `group_size`: a number of columns or `"row"`.
#[derive(FromPyObject, IntoPyObject)]
pub enum GroupSize {
    Columns(usize),
    Name(String),
}

impl GroupSize {
    pub fn parse(self) -> Result<Group, PyError> {
        Ok(match self {
            Self::Columns(columns) => Group::columns(columns)?,
            Self::Name(name) => name.parse()?,
        })
    }
}

impl From<Group> for GroupSize {
    fn from(group: Group) -> Self {
        match group {
            Group::Columns(columns) => Self::Columns(columns),
            Group::Row => Self::Name(group.to_string()),
        }
    }
}

/// `scale_dtype`: `"float16"` or `"bfloat16"`.
pub fn scale_type(name: &str) -> PyResult<ScaleType> {
    match name {
        "float16" => Ok(ScaleType::F16),
        "bfloat16" => Ok(ScaleType::BF16),
        _ => Err(PyValueError::new_err(format!(
            "unknown scale dtype {name:?}: expected float16 or bfloat16"
        ))),
    }
}

/// A dtype given by name or as anything numpy takes for one.
pub fn float_dtype(dtype: &Bound<'_, PyAny>) -> PyResult<FloatType> {
    if let Ok(name) = dtype.cast::<pyo3::types::PyString>() {
        return Ok(name.to_cow()?.parse::<FloatType>().map_err(PyError::from)?);
    }
    array::float_type_of(&numpy::PyArrayDescr::new(dtype.py(), dtype)?)?.ok_or_else(|| {
        PyValueError::new_err(format!("dtype {dtype}: expected float32, float16 or bfloat16"))
    })
}
