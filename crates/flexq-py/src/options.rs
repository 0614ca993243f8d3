//! Options as Python spells them, checked when a call's arguments are converted.

use std::num::NonZeroUsize;

use flexq_core::{FloatType, Group, ScaleType, Threads};
use numpy::PyArrayDescr;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{Borrowed, IntoPyObjectExt};

use crate::array;
use crate::error::PyError;

/// `group_size` and `act_group`: a number of columns or `"row"`.
#[derive(Clone, Copy)]
pub struct GroupSize(pub Group);

impl GroupSize {
    pub const DEFAULT: Self = Self(Group::DEFAULT);
}

impl FromPyObject<'_, '_> for GroupSize {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let group = if let Ok(name) = value.cast::<PyString>() {
            name.to_cow()?.parse()
        } else {
            Group::columns(value.extract()?)
        };
        Ok(Self(group.map_err(PyError::from)?))
    }
}

impl<'py> IntoPyObject<'py> for GroupSize {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        match self.0 {
            Group::Columns(columns) => columns.into_bound_py_any(py),
            Group::Row => "row".into_bound_py_any(py),
        }
    }
}

/// A floating-point type, by name or as anything numpy takes for a dtype.
#[derive(Clone, Copy)]
pub struct Dtype(pub FloatType);

impl Dtype {
    pub const F32: Self = Self(FloatType::F32);
}

impl FromPyObject<'_, '_> for Dtype {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let unknown =
            || PyValueError::new_err(format!("dtype {}: expected float32, float16 or bfloat16", &*value));
        if let Ok(name) = value.cast::<PyString>() {
            return array::from_name(&name.to_cow()?).map(Self).ok_or_else(unknown);
        }
        let descr = PyArrayDescr::new(value.py(), &*value)?;
        array::float_type_of(&descr)?.map(Self).ok_or_else(unknown)
    }
}

/// `scale_dtype`: float16, bfloat16 or "pair".
#[derive(Clone, Copy)]
pub struct ScaleDtype(pub ScaleType);

impl ScaleDtype {
    pub const F16: Self = Self(ScaleType::F16);

    /// The name that is read as this.
    pub const fn name(self) -> &'static str {
        match self.0 {
            ScaleType::F16 => "float16",
            ScaleType::BF16 => "bfloat16",
            ScaleType::Pair => "pair",
        }
    }
}

impl FromPyObject<'_, '_> for ScaleDtype {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        if value.extract::<&str>().is_ok_and(|name| name == "pair") {
            return Ok(Self(ScaleType::Pair));
        }
        match value.extract::<Dtype>().map(|dtype| dtype.0) {
            Ok(FloatType::F16) => Ok(Self(ScaleType::F16)),
            Ok(FloatType::BF16) => Ok(Self(ScaleType::BF16)),
            _ => Err(PyValueError::new_err(format!(
                "scale_dtype {}: expected float16, bfloat16 or pair",
                &*value
            ))),
        }
    }
}

/// `threads`: at least 1.
#[derive(Clone, Copy)]
pub struct ThreadCount(NonZeroUsize);

impl ThreadCount {
    /// All threads of the machine where none are given.
    pub fn resolve(threads: Option<Self>) -> Threads {
        threads.map_or(Threads::ALL, |threads| Threads::new(threads.0.get()))
    }
}

impl FromPyObject<'_, '_> for ThreadCount {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        value
            .extract::<usize>()
            .ok()
            .and_then(NonZeroUsize::new)
            .map(Self)
            .ok_or_else(|| PyValueError::new_err(format!("threads: expected at least 1, found {}", &*value)))
    }
}
