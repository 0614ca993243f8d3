//! numpy arrays in and out, as the bytes `flexq-core` works on.
//!
//! The only unsafe code of the bindings. Arrays are borrowed for the time of a
//! call; as with numpy's own functions, an array that another thread changes
//! meanwhile gives unspecified numbers.

use std::ffi::{c_int, c_void};
use std::slice;

use flexq_core::{FloatRows, FloatType, SharedBytes};
use numpy::npyffi::NPY_ARRAY_WRITEABLE;
use numpy::npyffi::types::NPY_TYPES;
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyArrayDyn, PyUntypedArray, PyUntypedArrayMethods, dtype};
use pyo3::exceptions::{PyImportError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};
use pyo3::{ffi, intern};

use crate::error::PyError;

/// numpy numbers the types that other packages register from here on.
const FIRST_USER_TYPE: c_int = 256;

/// The Python name of a type, as numpy and `ml_dtypes` spell it.
pub const fn name(dtype: FloatType) -> &'static str {
    match dtype {
        FloatType::F32 => "float32",
        FloatType::F16 => "float16",
        FloatType::BF16 => "bfloat16",
    }
}

/// The type of that name.
pub fn from_name(name: &str) -> Option<FloatType> {
    [FloatType::F32, FloatType::F16, FloatType::BF16].into_iter().find(|&dtype| self::name(dtype) == name)
}

/// The floating-point type a dtype stands for, if it is one of ours.
pub fn float_type_of(descr: &Bound<'_, PyArrayDescr>) -> PyResult<Option<FloatType>> {
    let number = descr.num();
    Ok(if descr.is_native_byteorder() == Some(false) {
        None
    } else if number == NPY_TYPES::NPY_FLOAT as c_int {
        Some(FloatType::F32)
    } else if number == NPY_TYPES::NPY_HALF as c_int {
        Some(FloatType::F16)
    } else if number >= FIRST_USER_TYPE && descr.typeobj().name()? == "bfloat16" {
        Some(FloatType::BF16)
    } else {
        None
    })
}

/// The type of an array's elements. `declared` is what the caller says they are,
/// which turns `uint16` into the bits of bfloat16.
fn float_type(array: &Bound<'_, PyUntypedArray>, declared: Option<FloatType>) -> PyResult<FloatType> {
    let descr = array.dtype();
    if declared == Some(FloatType::BF16) && descr.num() == NPY_TYPES::NPY_USHORT as c_int {
        return Ok(FloatType::BF16);
    }
    match float_type_of(&descr)? {
        Some(found) if declared.is_none_or(|declared| declared == found) => Ok(found),
        _ => Err(PyValueError::new_err(format!(
            "an array of {descr}: expected {}",
            declared.map_or(
                "float32, float16 or bfloat16 (of ml_dtypes, or as uint16 with dtype=\"bfloat16\")",
                name
            )
        ))),
    }
}

/// An array of floats that is read: C-contiguous, copied where the caller's is not.
pub struct Floats<'py> {
    array: Bound<'py, PyUntypedArray>,
    dtype: FloatType,
}

impl<'py> Floats<'py> {
    /// Checks the element type; see [`float_type`].
    pub fn new(array: &Bound<'py, PyUntypedArray>, declared: Option<FloatType>) -> PyResult<Self> {
        let dtype = float_type(array, declared)?;
        Ok(Self { array: contiguous(array)?, dtype })
    }

    pub fn dtype(&self) -> FloatType {
        self.dtype
    }

    pub fn shape(&self) -> &[usize] {
        self.array.shape()
    }

    /// The elements, row-major and little-endian.
    pub fn bytes(&self) -> &[u8] {
        bytes(&self.array)
    }

    /// The last dimension as columns, all others together as rows.
    pub fn rows(&self) -> Result<FloatRows<'_>, PyError> {
        let (rows, columns) = match self.shape().split_last() {
            Some((&columns, leading)) => (leading.iter().product(), columns),
            None => (1, 1),
        };
        Ok(FloatRows::new(self.bytes(), self.dtype, rows, columns)?)
    }
}

/// An array of floats that is written in place.
pub struct FloatsMut<'py> {
    array: Bound<'py, PyUntypedArray>,
    dtype: FloatType,
}

impl<'py> FloatsMut<'py> {
    /// The caller's array where there is one, which must be writable, C-contiguous
    /// and of this shape; a new one otherwise.
    pub fn take_or_new(
        py: Python<'py>,
        out: Option<&Bound<'py, PyUntypedArray>>,
        dtype: Option<FloatType>,
        default: FloatType,
        shape: &[usize],
    ) -> PyResult<Self> {
        let Some(out) = out else {
            let dtype = dtype.unwrap_or(default);
            return Ok(Self { array: zeros(py, shape, dtype)?, dtype });
        };
        let dtype = float_type(out, dtype)?;
        if out.shape() != shape {
            return Err(PyValueError::new_err(format!(
                "shape of out: expected {shape:?}, found {:?}",
                out.shape()
            )));
        }
        if !out.is_c_contiguous() || !is_writable(out) {
            return Err(PyValueError::new_err("out must be writable and C-contiguous"));
        }
        Ok(Self { array: out.clone(), dtype })
    }

    pub fn dtype(&self) -> FloatType {
        self.dtype
    }

    /// Whether a byte of `other` is also one of this array.
    pub fn overlaps(&self, other: &[u8]) -> bool {
        let (mine, theirs) = (bytes(&self.array).as_ptr_range(), other.as_ptr_range());
        mine.start < theirs.end && theirs.start < mine.end
    }

    /// The elements, row-major and little-endian.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = byte_len(&self.array);
        if len == 0 {
            return &mut [];
        }
        // SAFETY: the array is C-contiguous and writable (checked when taken, or made so), so
        // `data` points at `len` bytes that live as long as the array `self` owns.
        unsafe { slice::from_raw_parts_mut((*self.array.as_array_ptr()).data.cast(), len) }
    }

    pub fn into_array(self) -> Bound<'py, PyUntypedArray> {
        self.array
    }
}

/// A copy of an array's bytes, row-major, after a check of its type's name.
pub fn copy_bytes(array: &Bound<'_, PyUntypedArray>, expected: &[&str]) -> PyResult<SharedBytes> {
    let descr = array.dtype();
    let found = descr.typeobj().name()?;
    if !expected.iter().any(|name| found == *name) || descr.is_native_byteorder() == Some(false) {
        return Err(PyValueError::new_err(format!(
            "an array of {descr}: expected {}",
            expected.join(" or ")
        )));
    }
    Ok(bytes(&contiguous(array)?).to_vec().into())
}

/// The bytes of a C-contiguous array.
pub fn bytes<'a>(array: &'a Bound<'_, PyUntypedArray>) -> &'a [u8] {
    let len = byte_len(array);
    if len == 0 {
        return &[];
    }
    // SAFETY: callers pass C-contiguous arrays only, so `data` points at `len` readable bytes
    // that live as long as the array, which is borrowed for 'a.
    unsafe { slice::from_raw_parts((*array.as_array_ptr()).data.cast(), len) }
}

fn byte_len(array: &Bound<'_, PyUntypedArray>) -> usize {
    array.len() * array.dtype().itemsize()
}

fn is_writable(array: &Bound<'_, PyUntypedArray>) -> bool {
    // SAFETY: the pointer is that of a live array.
    unsafe { (*array.as_array_ptr()).flags & NPY_ARRAY_WRITEABLE != 0 }
}

/// The array itself, or a C-contiguous copy.
pub fn contiguous<'py>(array: &Bound<'py, PyUntypedArray>) -> PyResult<Bound<'py, PyUntypedArray>> {
    static ASCONTIGUOUSARRAY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if array.is_c_contiguous() {
        return Ok(array.clone());
    }
    let py = array.py();
    let copy = ASCONTIGUOUSARRAY.import(py, "numpy", "ascontiguousarray")?.call1((array,))?;
    Ok(copy.cast_into()?)
}

/// A dtype of the package `ml_dtypes`, or `None` where that is not installed.
pub fn ml_dtype<'py>(py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyArrayDescr>>> {
    match py.import(intern!(py, "ml_dtypes")) {
        Ok(module) => Ok(Some(PyArrayDescr::new(py, module.getattr(name)?)?)),
        Err(error) if error.is_instance_of::<PyImportError>(py) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The dtype of bfloat16 arrays: that of `ml_dtypes` where it is installed, else `uint16`.
fn bfloat16(py: Python<'_>) -> PyResult<&Bound<'_, PyArrayDescr>> {
    static BFLOAT16: PyOnceLock<Py<PyArrayDescr>> = PyOnceLock::new();
    let descr = BFLOAT16.get_or_try_init(py, || {
        PyResult::Ok(ml_dtype(py, "bfloat16")?.unwrap_or_else(|| dtype::<u16>(py)).unbind())
    })?;
    Ok(descr.bind(py))
}

/// The numpy dtype for floats of this type.
pub fn float_descr(py: Python<'_>, dtype: FloatType) -> PyResult<Bound<'_, PyArrayDescr>> {
    match dtype {
        FloatType::F32 => Ok(numpy::dtype::<f32>(py)),
        FloatType::F16 => Ok(numpy::dtype::<half::f16>(py)),
        FloatType::BF16 => bfloat16(py).cloned(),
    }
}

fn zeros<'py>(py: Python<'py>, shape: &[usize], dtype: FloatType) -> PyResult<Bound<'py, PyUntypedArray>> {
    Ok(match dtype {
        FloatType::F32 => PyArrayDyn::<f32>::zeros(py, shape, false).into_any().cast_into()?,
        FloatType::F16 => PyArrayDyn::<half::f16>::zeros(py, shape, false).into_any().cast_into()?,
        FloatType::BF16 => PyArrayDyn::<u16>::zeros(py, shape, false)
            .call_method1(intern!(py, "view"), (bfloat16(py)?,))?
            .cast_into()?,
    })
}

/// Shared bytes offered to Python through the buffer protocol, read-only.
#[pyclass(frozen)]
struct Buffer(SharedBytes);

#[pymethods]
impl Buffer {
    unsafe fn __getbuffer__(slf: &Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let bytes: &[u8] = &slf.get().0;
        let start = bytes.as_ptr().cast_mut().cast::<c_void>();
        // SAFETY: the interpreter passes a valid `view`; the bytes never change, live as long as
        // the object that `view` keeps alive, and are offered as read-only.
        let status =
            unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, bytes.len().cast_signed(), 1, flags) };
        if status == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// A read-only array over shared bytes, which it keeps alive; nothing is copied.
pub fn view<'py>(
    py: Python<'py>,
    bytes: &SharedBytes,
    descr: &Bound<'py, PyArrayDescr>,
    shape: &[usize],
) -> PyResult<Bound<'py, PyAny>> {
    static NDARRAY: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let buffer = Bound::new(py, Buffer(bytes.clone()))?;
    NDARRAY.import(py, "numpy", "ndarray")?.call1((PyTuple::new(py, shape)?, descr, buffer))
}
