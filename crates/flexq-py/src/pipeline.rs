//! Whole checkpoints: `flexq.pack` and its siblings, as JSON documents for Python to parse.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use flexq_core::inspect;
use flexq_core::interop::{export_compressed_tensors, import_compressed_tensors};
use flexq_core::pipeline::{self, Event, PackOptions, Policy, Progress, WriteOptions};
use flexq_core::select::{Pattern, Rules};
use flexq_core::{Error, Scheme, report, verify};
use pyo3::prelude::*;

use crate::error::PyError;
use crate::options::{Dtype, GroupSize, ScaleDtype, ThreadCount};

/// Bytes between two looks at Python: enough to cost nothing, few enough to stop at once.
const STEP: u64 = 16 << 20;

/// Tells a Python callable `(done, total)` in bytes, and looks for signals.
struct Reporter {
    callback: Option<Py<PyAny>>,
    done: AtomicU64,
    total: AtomicU64,
    /// What Python raised: the callable's exception or `KeyboardInterrupt`.
    raised: Mutex<Option<PyErr>>,
}

impl Reporter {
    fn new(callback: Option<Py<PyAny>>) -> Self {
        Self { callback, done: AtomicU64::new(0), total: AtomicU64::new(0), raised: Mutex::new(None) }
    }

    fn advance(&self, bytes: u64) -> ControlFlow<()> {
        let before = self.done.fetch_add(bytes, Ordering::Relaxed);
        let (done, total) = (before + bytes, self.total.load(Ordering::Relaxed));
        if before / STEP == done / STEP && done < total {
            return ControlFlow::Continue(());
        }
        let told = Python::attach(|py| {
            if let Some(callback) = &self.callback {
                callback.call1(py, (done, total))?;
            }
            Ok(())
        });
        match told {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                if let Ok(mut raised) = self.raised.lock() {
                    raised.get_or_insert(error);
                }
                ControlFlow::Break(())
            }
        }
    }

    /// Does `work` without holding the interpreter, which looks for signals meanwhile.
    fn run<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&dyn Progress) -> flexq_core::Result<T> + Send,
    ) -> PyResult<T> {
        let result = py.detach(|| work(self));
        if let Some(error) = self.raised.lock().ok().and_then(|mut raised| raised.take()) {
            return Err(error);
        }
        Ok(result.map_err(PyError::from)?)
    }
}

impl Progress for Reporter {
    fn report(&self, event: Event<'_>) -> ControlFlow<()> {
        match event {
            Event::Begin { bytes, .. } => {
                self.total.store(bytes, Ordering::Relaxed);
                ControlFlow::Continue(())
            }
            Event::Kept { bytes, .. } | Event::Bytes(bytes) => self.advance(bytes),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn write_options(threads: Option<ThreadCount>, force: bool) -> WriteOptions {
    WriteOptions { threads: ThreadCount::resolve(threads), force, ..WriteOptions::default() }
}

/// What [`pack`] and `plan` are told.
fn pack_options(
    preset: &str,
    include: &[String],
    exclude: &[String],
    group_size: GroupSize,
    rule: &str,
    scale_dtype: ScaleDtype,
    policy: &str,
    write: WriteOptions,
) -> Result<PackOptions, Error> {
    let patterns =
        |texts: &[String]| texts.iter().map(|text| Pattern::new(text)).collect::<Result<Vec<_>, _>>();
    Ok(PackOptions {
        rules: Rules { preset: preset.parse()?, include: patterns(include)?, exclude: patterns(exclude)? },
        scheme: Scheme { group: group_size.0, rule: rule.parse()?, scale_type: scale_dtype.0 },
        policy: Policy::named(policy)?,
        write,
    })
}

#[pyfunction]
pub fn pack(
    py: Python<'_>,
    input: PathBuf,
    output: PathBuf,
    preset: &str,
    include: Vec<String>,
    exclude: Vec<String>,
    group_size: GroupSize,
    rule: &str,
    scale_dtype: ScaleDtype,
    policy: &str,
    threads: Option<ThreadCount>,
    force: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let write = write_options(threads, force);
    let options = pack_options(preset, &include, &exclude, group_size, rule, scale_dtype, policy, write)
        .map_err(PyError::from)?;
    let report =
        Reporter::new(progress).run(py, |progress| pipeline::pack(&input, &output, &options, progress))?;
    Ok(report::pack(&report).to_string())
}

#[pyfunction]
pub fn unpack(
    py: Python<'_>,
    input: PathBuf,
    output: PathBuf,
    dtype: Option<Dtype>,
    threads: Option<ThreadCount>,
    force: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let options = write_options(threads, force);
    let dtype = dtype.map(|dtype| dtype.0);
    let report = Reporter::new(progress)
        .run(py, |progress| pipeline::unpack(&input, &output, dtype, options, progress))?;
    Ok(report::unpack(&report).to_string())
}

#[pyfunction]
pub fn export(
    py: Python<'_>,
    input: PathBuf,
    output: PathBuf,
    threads: Option<ThreadCount>,
    force: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let options = write_options(threads, force);
    let report = Reporter::new(progress)
        .run(py, |progress| export_compressed_tensors(&input, &output, options, progress))?;
    Ok(report::export(&report).to_string())
}

#[pyfunction]
pub fn import_(
    py: Python<'_>,
    input: PathBuf,
    output: PathBuf,
    threads: Option<ThreadCount>,
    force: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let options = write_options(threads, force);
    let report = Reporter::new(progress)
        .run(py, |progress| import_compressed_tensors(&input, &output, options, progress))?;
    Ok(report::import(&report).to_string())
}

/// Gives packed files that another program wrote their manifests: `weights` are names and shapes.
#[pyfunction]
pub fn seal(
    py: Python<'_>,
    path: PathBuf,
    weights: BTreeMap<String, Vec<usize>>,
    dtype: Dtype,
    group_size: GroupSize,
    rule: &str,
    scale_dtype: ScaleDtype,
) -> PyResult<()> {
    let rule = rule.parse().map_err(PyError::from)?;
    let scheme = Scheme { group: group_size.0, rule, scale_type: scale_dtype.0 };
    py.detach(|| pipeline::seal(&path, &weights, dtype.0, scheme)).map_err(PyError::from)?;
    Ok(())
}

#[pyfunction(name = "inspect")]
pub fn inspect_checkpoint(py: Python<'_>, path: PathBuf, scan: bool) -> PyResult<String> {
    let found = py.detach(|| inspect::inspect(&path, scan)).map_err(PyError::from)?;
    Ok(report::inspection(&found).to_string())
}

#[pyfunction(name = "verify")]
pub fn verify_checkpoint(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    let reports = py.detach(|| verify::verify_checkpoint(&path)).map_err(PyError::from)?;
    Ok(report::verification(&reports).to_string())
}

#[pyfunction]
pub fn plan(
    py: Python<'_>,
    path: PathBuf,
    preset: &str,
    include: Vec<String>,
    exclude: Vec<String>,
    group_size: GroupSize,
    rule: &str,
    scale_dtype: ScaleDtype,
) -> PyResult<String> {
    let write = WriteOptions::default();
    let options = pack_options(preset, &include, &exclude, group_size, rule, scale_dtype, "auto", write)
        .map_err(PyError::from)?;
    let (summary, _) = py.detach(|| pipeline::plan(&path, &options)).map_err(PyError::from)?;
    Ok(report::summary(&summary).to_string())
}
