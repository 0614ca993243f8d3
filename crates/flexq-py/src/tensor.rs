//! `flexq.QTensor`.

use flexq_core::{FloatRowsMut, FloatType, QTensor, ScaleType, Scheme};
use numpy::{PyArray1, PyArrayDyn, PyArrayMethods, PyUntypedArray};
use pyo3::exceptions::{PyIndexError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PySlice, PyTuple, PyType};

use crate::array::{self, FloatsMut};
use crate::cuda_tensor::{CudaTensor, ordinal};
use crate::error::PyError;
use crate::options::{Dtype, GroupSize, ScaleDtype, ThreadCount};

/// A 6-bit weight of shape `[N, K]`, or `[E, N, K]` for fused experts.
///
/// Immutable, and shared rather than copied: slices, copies and the arrays `packed`
/// and `scales` all look at the same bytes, which may lie in a memory-mapped file.
#[pyclass(name = "QTensor", module = "flexq", frozen)]
pub struct PyQTensor(pub QTensor);

impl PyQTensor {
    /// The shape with its last dimension replaced.
    fn shape_with(&self, last: usize) -> Vec<usize> {
        let mut shape = self.0.shape().to_vec();
        if let Some(k) = shape.last_mut() {
            *k = last;
        }
        shape
    }
}

#[pymethods]
impl PyQTensor {
    /// A tensor over a copy of canonical bytes.
    ///
    /// Args:
    ///     packed: uint8, `rows * ceil(6 K / 8)` elements in any shape.
    ///     scales: float16 or bfloat16 as `scale_dtype` says, or their bits as uint16; one
    ///         per group of every row, in any shape. Pairs are always uint16.
    ///     shape: `(N, K)` or `(E, N, K)`.
    ///     group_size: columns per scale, or "row".
    ///     rule: how the scales were found.
    ///     scale_dtype: how they are stored.
    ///     dtype: type of the weight before.
    #[classmethod]
    #[pyo3(signature = (packed, scales, shape, group_size=GroupSize::DEFAULT, rule="absmax32s", scale_dtype=ScaleDtype::F16, dtype=Dtype::F32), text_signature = "(packed, scales, shape, group_size=128, rule='absmax32s', scale_dtype='float16', dtype='float32')")]
    fn from_parts(
        _cls: &Bound<'_, PyType>,
        packed: &Bound<'_, PyUntypedArray>,
        scales: &Bound<'_, PyUntypedArray>,
        shape: Vec<usize>,
        group_size: GroupSize,
        rule: &str,
        scale_dtype: ScaleDtype,
        dtype: Dtype,
    ) -> PyResult<Self> {
        let scheme = Scheme {
            group: group_size.0,
            rule: rule.parse().map_err(PyError::from)?,
            scale_type: scale_dtype.0,
        };
        let packed = array::copy_bytes(packed, &["uint8"])?;
        let scales = array::copy_bytes(scales, &[scale_dtype.name(), "uint16"])?;
        Ok(Self(QTensor::from_parts(shape, dtype.0, scheme, packed, scales).map_err(PyError::from)?))
    }

    /// Logical shape, `(N, K)` or `(E, N, K)`.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.shape())
    }

    /// Number of dimensions, 2 or 3.
    #[getter]
    fn ndim(&self) -> usize {
        self.0.shape().len()
    }

    /// Name of the type the weight was quantized from.
    #[getter]
    fn dtype(&self) -> &'static str {
        array::name(self.0.origin())
    }

    /// Bytes of codes and scales.
    #[getter]
    fn nbytes(&self) -> usize {
        self.0.nbytes()
    }

    /// Stored bits per weight: 6.125 with float16 scales per 128 columns.
    #[getter]
    fn bits_per_weight(&self) -> f64 {
        self.0.bits_per_weight()
    }

    /// Columns per scale, or `"row"`.
    #[getter]
    fn group_size(&self) -> GroupSize {
        GroupSize(self.0.scheme().group)
    }

    /// Name of the rule that found the scales.
    #[getter]
    fn scale_rule(&self) -> &'static str {
        self.0.scheme().rule.name()
    }

    /// Name of the type scales are stored in.
    #[getter]
    fn scale_dtype(&self) -> &'static str {
        ScaleDtype(self.0.scheme().scale_type).name()
    }

    /// Scales, one per group: read-only `[N, groups]` (or `[E, N, groups]`), nothing copied.
    /// Pairs are uint16 words of two.
    #[getter]
    fn scales<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let descr = match self.0.scheme().scale_type {
            ScaleType::Pair => numpy::dtype::<u16>(py),
            scale_type => array::float_descr(py, scale_type.float_type())?,
        };
        let groups = self.0.scheme().group.count(self.0.columns());
        array::view(py, self.0.scales(), &descr, &self.shape_with(groups))
    }

    /// Codes as stored: read-only uint8 `[N, ceil(6 K / 8)]` (or `[E, N, ...]`), nothing copied.
    #[getter]
    fn packed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let row = flexq_core::layout::packed_row_bytes(self.0.columns());
        array::view(py, self.0.packed(), &numpy::dtype::<u8>(py), &self.shape_with(row))
    }

    /// Codes in -32..31, one per weight: int8 of the tensor's shape.
    #[pyo3(signature = (*, threads=None))]
    fn codes<'py>(
        &self,
        py: Python<'py>,
        threads: Option<ThreadCount>,
    ) -> PyResult<Bound<'py, PyArrayDyn<i8>>> {
        let mut codes = vec![0; self.0.rows() * self.0.columns()];
        py.detach(|| flexq_core::unpack_codes(&self.0, &mut codes, ThreadCount::resolve(threads)))
            .map_err(PyError::from)?;
        PyArray1::from_vec(py, codes).reshape(self.0.shape())
    }

    /// The weights again, `code * scale` rounded to `dtype`, of the tensor's shape.
    ///
    /// Args:
    ///     dtype: float32 (the default), float16 or bfloat16.
    ///     out: a writable C-contiguous array for them.
    ///     threads: how many may work; all of the machine by default.
    #[pyo3(signature = (dtype=None, out=None, *, threads=None))]
    fn dequantize<'py>(
        &self,
        py: Python<'py>,
        dtype: Option<Dtype>,
        out: Option<&Bound<'py, PyUntypedArray>>,
        threads: Option<ThreadCount>,
    ) -> PyResult<Bound<'py, PyUntypedArray>> {
        let dtype = dtype.map(|dtype| dtype.0);
        let mut w = FloatsMut::take_or_new(py, out, dtype, FloatType::F32, self.0.shape())?;
        let dtype = w.dtype();
        let bytes = w.bytes_mut();
        py.detach(|| {
            let mut w = FloatRowsMut::new(bytes, dtype, self.0.rows(), self.0.columns())?;
            flexq_core::dequantize(&self.0, &mut w, ThreadCount::resolve(threads))
        })
        .map_err(PyError::from)?;
        Ok(w.into_array())
    }

    /// The same weights with a float16 scale of its own for every half of a group.
    ///
    /// Raises:
    ///     ValueError: pairs in groups of 32; there are no groups of 16.
    fn unpaired(&self) -> Result<Self, PyError> {
        Ok(Self(self.0.unpaired()?))
    }

    /// A copy on a GPU, `"cuda"` or `"cuda:1"`, for `flexq.matmul`.
    ///
    /// Raises:
    ///     ValueError: another device, or a stack of experts.
    ///     CudaError: no driver, no GPU, or no memory left on it.
    fn to(&self, py: Python<'_>, device: &str) -> PyResult<CudaTensor> {
        if device == "cpu" {
            return Err(PyValueError::new_err("device cpu: the weight is there; expected cuda or cuda:N"));
        }
        let gpu = ordinal(device)?;
        py.detach(|| CudaTensor::new(&self.0, gpu))
    }

    fn __len__(&self) -> usize {
        self.0.shape()[0]
    }

    /// Rows by slice, `q[2:5]`; experts of a stack by slice or by number, `q[0]`.
    fn __getitem__(&self, index: &Bound<'_, PyAny>) -> PyResult<Self> {
        let len = self.0.shape()[0];
        if let Ok(slice) = index.cast::<PySlice>() {
            let part = slice.indices(len.cast_signed())?;
            if part.step != 1 {
                return Err(PyValueError::new_err("a quantized tensor is sliced with step 1 only"));
            }
            let start = part.start.cast_unsigned();
            return Ok(Self(self.0.slice(start..start + part.slicelength).map_err(PyError::from)?));
        }
        let Ok(index) = index.extract::<isize>() else {
            return Err(PyTypeError::new_err("index a quantized tensor by a slice or an expert's number"));
        };
        if self.0.shape().len() != 3 {
            return Err(PyTypeError::new_err("take rows of a quantized matrix by slice: q[i:i + 1]"));
        }
        let position = if index < 0 { index + len.cast_signed() } else { index };
        if position < 0 || position >= len.cast_signed() {
            return Err(PyIndexError::new_err(format!("expert {index} of {len}")));
        }
        Ok(Self(self.0.expert(position.cast_unsigned()).map_err(PyError::from)?))
    }

    /// Refused, so that `np.asarray(q)` or `x @ q` cannot make an array of one object.
    #[pyo3(signature = (dtype=None, copy=None))]
    fn __array__(&self, dtype: Option<&Bound<'_, PyAny>>, copy: Option<bool>) -> PyResult<()> {
        let _ = (dtype, copy);
        let this = self.__repr__();
        Err(PyTypeError::new_err(format!(
            "{this} is no array: flexq.matmul(x, q) multiplies with it, q.dequantize() and q.codes() give arrays"
        )))
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.0.shape() == other.0.shape()
            && self.0.origin() == other.0.origin()
            && self.0.scheme() == other.0.scheme()
            && self.0.scales()[..] == other.0.scales()[..]
            && self.0.packed()[..] == other.0.packed()[..]
    }

    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let (py, this) = (slf.py(), slf.get());
        let scale_bits =
            array::view(py, this.0.scales(), &numpy::dtype::<u16>(py), &[this.0.scales().len() / 2])?;
        (
            slf.get_type().getattr("from_parts")?,
            (
                this.packed(py)?,
                scale_bits,
                this.shape(py)?,
                this.group_size(),
                this.scale_rule(),
                this.scale_dtype(),
                this.dtype(),
            ),
        )
            .into_pyobject(py)
    }

    fn __repr__(&self) -> String {
        let shape: Vec<_> = self.0.shape().iter().map(ToString::to_string).collect();
        format!(
            "QTensor(shape=({}), bits_per_weight={}, group_size={}, scale_rule='{}', dtype='{}')",
            shape.join(", "),
            (self.0.bits_per_weight() * 1e4).round() / 1e4,
            self.0.scheme().group,
            self.scale_rule(),
            self.dtype()
        )
    }
}
