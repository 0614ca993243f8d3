//! `flexq.CudaTensor`: a weight that lives on a GPU, multiplied with numpy arrays.

use std::sync::{Arc, Mutex, PoisonError};

use flexq_core::{FloatType, Group, QTensor};
use flexq_cuda::device::Device;
use flexq_cuda::linear::{self, Linear, Matrix, Precision, Workspace};
use flexq_cuda::memory::Buffer;
use flexq_cuda::prepare::{self, Canonical, Weight};
use flexq_cuda::{Dtype, ScaleType, order};
use numpy::PyUntypedArray;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::array::{Floats, FloatsMut};
use crate::cuda::{GpuError, bits};

/// A weight on a GPU, in the order kernels read; made by `QTensor.to("cuda")`.
#[pyclass(name = "CudaTensor", module = "flexq", frozen)]
pub struct CudaTensor {
    codes: Buffer,
    scales: Buffer,
    scale_type: ScaleType,
    n: usize,
    k: usize,
    group: flexq_cuda::Group,
    /// Used by one product at a time.
    workspace: Mutex<Option<Buffer>>,
}

impl CudaTensor {
    /// Copies a matrix to GPU `ordinal` and reorders it there.
    pub fn new(q: &QTensor, ordinal: usize) -> PyResult<Self> {
        let &[n, k] = q.shape() else {
            return Err(PyValueError::new_err("only matrices go to a GPU: take one expert, q[i]"));
        };
        let device = Device::get(ordinal).map_err(GpuError::from)?;
        let q = &q.unpaired().map_err(crate::error::PyError::from)?;
        let group = match q.scheme().group {
            Group::Columns(columns) => flexq_cuda::Group::Columns(columns),
            Group::Row => flexq_cuda::Group::Row,
        };
        let scale_type = match q.scheme().scale_type {
            flexq_core::ScaleType::F16 | flexq_core::ScaleType::Pair => ScaleType::F16,
            flexq_core::ScaleType::BF16 => ScaleType::BF16,
        };
        let load = || -> flexq_cuda::Result<(Buffer, Buffer)> {
            let packed = Buffer::copy_of(&device, q.packed())?;
            let canonical_scales = Buffer::copy_of(&device, q.scales())?;
            let codes = Buffer::zeros(&device, order::weight_bytes(n, k))?;
            let scales = Buffer::zeros(&device, order::scale_count(n, k, group.segment()) * 2)?;
            let to = Weight { codes: codes.address(), scales: scales.address(), scale_type, n, k, group };
            let from = Canonical { packed: packed.address(), scales: canonical_scales.address() };
            // SAFETY: the buffers have the sizes of this shape and live until the wait below.
            unsafe { prepare::repack(&device, 0, from, &to)? };
            codes.synchronize()?;
            Ok((codes, scales))
        };
        let (codes, scales) = load().map_err(GpuError::from)?;
        Ok(Self { codes, scales, scale_type, n, k, group, workspace: Mutex::default() })
    }

    fn weight(&self) -> Weight {
        Weight {
            codes: self.codes.address(),
            scales: self.scales.address(),
            scale_type: self.scale_type,
            n: self.n,
            k: self.k,
            group: self.group,
        }
    }

    /// `x [.., k]` times the transpose of the weight, into `out`.
    fn multiply(
        &self,
        x: &[u8],
        matrix: Matrix,
        precision: Precision,
        out: &mut [u8],
        y: Dtype,
        kernel: Option<&str>,
    ) -> flexq_cuda::Result<()> {
        let device: &Arc<Device> = self.codes.device();
        let weight = self.weight();
        let config = linear::choice(device, &weight, &matrix, precision, kernel)?;
        let needed = linear::workspace_bytes_with(device, &weight, &matrix, precision, &config)? as usize;
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        let workspace = match &mut *workspace {
            Some(buffer) if buffer.len() >= needed => buffer,
            other => other.insert(Buffer::zeros(device, needed)?),
        };
        let x = Buffer::copy_of(device, x)?;
        let result = Buffer::zeros(device, out.len())?;
        let product = Linear {
            weight: &weight,
            x: Matrix { address: x.address(), ..matrix },
            bias: None,
            y: (result.address(), y),
            precision,
            workspace: Workspace { address: workspace.address(), bytes: workspace.len() as u64 },
        };
        // SAFETY: the buffers have the sizes of these shapes; `copy_to` waits for the work.
        unsafe { linear::linear_with(device, 0, &product, &config)? };
        result.copy_to(out)
    }

    /// `flexq.matmul` with this weight.
    #[expect(clippy::too_many_arguments, reason = "those of `flexq.matmul`")]
    pub fn matmul<'py>(
        &self,
        py: Python<'py>,
        x: &Floats,
        act_bits: u8,
        per_row: bool,
        out: Option<&Bound<'py, PyUntypedArray>>,
        out_dtype: Option<FloatType>,
        kernel: Option<&str>,
    ) -> PyResult<Bound<'py, PyUntypedArray>> {
        let Some((&k, leading)) = x.shape().split_last() else {
            return Err(PyValueError::new_err("x has no dimension: expected [..., K]"));
        };
        if k != self.k {
            return Err(PyValueError::new_err(format!("columns of x: expected {}, found {k}", self.k)));
        }
        let precision = Precision { bits: bits(act_bits)?, per_row };
        let rows = leading.iter().product();
        let mut shape = leading.to_vec();
        shape.push(self.n);
        let mut y = FloatsMut::take_or_new(py, out, out_dtype, x.dtype(), &shape)?;
        if y.overlaps(x.bytes()) {
            return Err(PyValueError::new_err("out shares memory with x"));
        }
        let matrix = Matrix { address: 0, dtype: gpu_type(x.dtype()), rows, stride: k };
        let (bytes, y_type) = (x.bytes(), gpu_type(y.dtype()));
        let out = y.bytes_mut();
        py.detach(|| self.multiply(bytes, matrix, precision, out, y_type, kernel)).map_err(GpuError::from)?;
        Ok(y.into_array())
    }
}

#[pymethods]
impl CudaTensor {
    /// Logical shape, `(N, K)`.
    #[getter]
    fn shape(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    /// Bytes on the GPU, padding included.
    #[getter]
    fn nbytes(&self) -> usize {
        self.codes.len() + self.scales.len()
    }

    /// The GPU, such as `"cuda:0"`.
    #[getter]
    pub fn device(&self) -> String {
        format!("cuda:{}", self.codes.device().info().ordinal)
    }

    fn __repr__(&self) -> String {
        format!("CudaTensor(shape=({}, {}), device='{}')", self.n, self.k, self.device())
    }
}

fn gpu_type(dtype: FloatType) -> Dtype {
    match dtype {
        FloatType::F16 => Dtype::F16,
        FloatType::BF16 => Dtype::BF16,
        FloatType::F32 => Dtype::F32,
    }
}

/// The number of a GPU in `"cuda"` or `"cuda:1"`.
pub fn ordinal(device: &str) -> PyResult<usize> {
    let number = match device.strip_prefix("cuda") {
        Some("") => Some(0),
        Some(rest) => rest.strip_prefix(':').and_then(|number| number.parse().ok()),
        None => None,
    };
    number.ok_or_else(|| {
        PyValueError::new_err(format!("unknown device {device:?}: expected cpu, cuda or cuda:N"))
    })
}
