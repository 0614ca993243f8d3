//! Files: tensors by name, mapped on opening and copied never.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::PathBuf;

use flexq_core::SharedBytes;
use flexq_core::checkpoint::{Checkpoint, INDEX};
use flexq_core::format::{Description, Dtype, EntryId, File, Plan, Writer};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyKeyError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyMapping;

use crate::array;
use crate::error::PyError;
use crate::tensor::PyQTensor;

/// Stored types and the numpy ones that hold them. Those in the second list come from `ml_dtypes`.
const NUMPY: [(Dtype, &str); 13] = [
    (Dtype::Bool, "bool"),
    (Dtype::U8, "uint8"),
    (Dtype::I8, "int8"),
    (Dtype::U16, "uint16"),
    (Dtype::I16, "int16"),
    (Dtype::U32, "uint32"),
    (Dtype::I32, "int32"),
    (Dtype::U64, "uint64"),
    (Dtype::I64, "int64"),
    (Dtype::F16, "float16"),
    (Dtype::F32, "float32"),
    (Dtype::F64, "float64"),
    (Dtype::C64, "complex64"),
];
const ML_DTYPES: [(Dtype, &str); 6] = [
    (Dtype::BF16, "bfloat16"),
    (Dtype::F8_E4M3, "float8_e4m3fn"),
    (Dtype::F8_E5M2, "float8_e5m2"),
    (Dtype::F8_E8M0, "float8_e8m0fnu"),
    (Dtype::F8_E4M3FNUZ, "float8_e4m3fnuz"),
    (Dtype::F8_E5M2FNUZ, "float8_e5m2fnuz"),
];

/// The dtype of an array of stored elements: the unsigned integer of the same size
/// where the type needs `ml_dtypes` and that is not installed.
fn descr_of<'py>(py: Python<'py>, name: &str, dtype: Dtype) -> PyResult<Bound<'py, PyArrayDescr>> {
    let named = |table: &[(Dtype, &'static str)]| {
        table.iter().find(|(stored, _)| *stored == dtype).map(|(_, numpy)| *numpy)
    };
    if let Some(numpy) = named(&NUMPY) {
        return PyArrayDescr::new(py, numpy);
    }
    let Some(numpy) = named(&ML_DTYPES) else {
        return Err(PyValueError::new_err(format!(
            "tensor {name:?} is stored as {dtype}, for which numpy has no type"
        )));
    };
    match array::ml_dtype(py, numpy)? {
        Some(descr) => Ok(descr),
        None => PyArrayDescr::new(py, if dtype.bits() == 16 { "uint16" } else { "uint8" }),
    }
}

fn dtype_of(name: &str, descr: &Bound<'_, PyArrayDescr>) -> PyResult<Dtype> {
    let numpy: String = descr.getattr("name")?.extract()?;
    NUMPY
        .iter()
        .chain(&ML_DTYPES)
        .find(|(_, known)| *known == numpy && descr.is_native_byteorder() != Some(false))
        .map(|(dtype, _)| *dtype)
        .ok_or_else(|| PyValueError::new_err(format!("tensor {name:?}: arrays of {descr} cannot be stored")))
}

/// An opened file, or the files of an opened directory.
#[pyclass(frozen)]
pub struct Reader {
    files: Vec<File>,
    /// Logical names in file order.
    names: Vec<String>,
    /// File of each name.
    index: HashMap<String, usize>,
}

#[pymethods]
impl Reader {
    #[new]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let path = match path.parent() {
            Some(directory) if path.file_name() == Some(OsStr::new(INDEX)) => directory.to_owned(),
            _ => path,
        };
        let checkpoint = py.detach(|| Checkpoint::open(path)).map_err(PyError::from)?;
        let files: Vec<File> = checkpoint.shards().iter().map(|shard| shard.file().clone()).collect();
        let mut names = Vec::new();
        let mut index = HashMap::new();
        for (at, file) in files.iter().enumerate() {
            for name in file.names() {
                names.push(name.to_owned());
                index.insert(name.to_owned(), at);
            }
        }
        Ok(Self { files, names, index })
    }

    fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// Name, safetensors type and shape of every tensor as it is stored.
    fn stored(&self) -> Vec<(String, &'static str, Vec<usize>)> {
        let entries = self.files.iter().flat_map(File::entries);
        entries.map(|entry| (entry.name().to_owned(), entry.dtype().name(), entry.shape().to_vec())).collect()
    }

    /// The strings of the header; of several files, those of the first that has the key.
    fn metadata(&self) -> HashMap<String, String> {
        let mut metadata = HashMap::new();
        for file in &self.files {
            for (key, value) in file.metadata() {
                metadata.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        metadata
    }

    fn get<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let at = self.index.get(name).ok_or_else(|| PyKeyError::new_err(name.to_owned()))?;
        let file = &self.files[*at];
        let Some(entry) = file.entry(name) else {
            let tensor = PyQTensor(file.qtensor(name).map_err(PyError::from)?);
            return Ok(Bound::new(py, tensor)?.into_any());
        };
        let bytes = file.bytes(name).map_err(PyError::from)?;
        array::view(py, &bytes, &descr_of(py, name, entry.dtype())?, entry.shape())
    }
}

/// What one tensor adds to a file.
enum Source<'py> {
    Array(Bound<'py, PyUntypedArray>),
    Shared(SharedBytes),
}

/// Writes tensors to a file, all or nothing.
#[pyfunction]
#[pyo3(signature = (tensors, path, metadata=None))]
pub fn save_file(
    py: Python<'_>,
    tensors: &Bound<'_, PyMapping>,
    path: PathBuf,
    metadata: Option<HashMap<String, String>>,
) -> PyResult<()> {
    let fault = |error| PyError::in_file(&path, error);
    let mut plan = Plan::new();
    for (key, value) in metadata.unwrap_or_default() {
        plan.set_metadata(key, value);
    }
    let mut sources: Vec<(EntryId, Source<'_>)> = Vec::new();
    for item in tensors.items()?.iter() {
        let (name, value): (String, Bound<'_, PyAny>) = item.extract()?;
        if let Ok(tensor) = value.cast::<PyQTensor>() {
            let tensor = &tensor.get().0;
            let description = Description {
                shape: tensor.shape().to_vec(),
                origin: tensor.origin(),
                scheme: tensor.scheme(),
            };
            let (codes, scales) = plan.add_quantized(name, description).map_err(fault)?;
            sources.push((codes, Source::Shared(tensor.packed().clone())));
            sources.push((scales, Source::Shared(tensor.scales().clone())));
        } else if let Ok(array) = value.cast::<PyUntypedArray>() {
            let dtype = dtype_of(&name, &array.dtype())?;
            let id = plan.add(name, dtype, array.shape().to_vec()).map_err(fault)?;
            sources.push((id, Source::Array(array::contiguous(array)?)));
        } else {
            return Err(PyTypeError::new_err(format!(
                "tensor {name:?}: expected a QTensor or a numpy array, found {}",
                value.get_type().name()?
            )));
        }
    }
    let sources: Vec<(EntryId, &[u8])> = sources
        .iter()
        .map(|(id, source)| match source {
            Source::Array(array) => (*id, array::bytes(array)),
            Source::Shared(bytes) => (*id, &bytes[..]),
        })
        .collect();
    py.detach(|| {
        let writer = Writer::create(&path, plan)?;
        sources.iter().try_for_each(|(id, bytes)| writer.write(*id, bytes))?;
        writer.finish()
    })
    .map_err(PyError::from)?;
    Ok(())
}
