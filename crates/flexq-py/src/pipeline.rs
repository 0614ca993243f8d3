//! Whole checkpoints: `flexq.pack` and its siblings, as JSON documents for Python to parse.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use flexq_core::checkpoint::Checkpoint;
use flexq_core::inspect::{self, Levels};
use flexq_core::interop::{export_compressed_tensors, import_compressed_tensors};
use flexq_core::pipeline::{self, Event, PackOptions, Policy, Progress, Summary, WriteOptions, WriteReport};
use flexq_core::select::{Pattern, Rules};
use flexq_core::{Error, Scheme, verify};
use pyo3::prelude::*;
use serde_json::{Value, json};

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

fn work(report: &WriteReport) -> Value {
    json!({
        "total_bytes": report.file_bytes,
        "bytes_read": report.bytes_read,
        "seconds": report.duration.as_secs_f64(),
        "resumed": report.resumed,
        "copied": report.copied,
        "left_out": report.left_out,
    })
}

fn packed(summary: &Summary) -> Value {
    let (total, quantized) = (summary.total(), summary.quantized());
    let kept: Vec<Value> = summary
        .kept()
        .into_iter()
        .map(|(reason, sum)| {
            json!({ "reason": reason.to_string(), "tensors": sum.tensors, "weights": sum.weights, "bytes": sum.bytes_after })
        })
        .collect();
    json!({
        "bytes_before": total.bytes_before,
        "bytes_after": summary.file_bytes(),
        "theory_bytes": summary.theory_bytes(),
        "header_bytes": summary.header_bytes(),
        "weights": total.weights,
        "quantized_weights": quantized.weights,
        "quantized_tensors": quantized.tensors,
        "bits_per_weight": quantized.bits_per_weight(),
        "kept": kept,
    })
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
    let mut document = packed(&report.summary);
    document["work"] = work(&report.work);
    Ok(document.to_string())
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
    Ok(work(&report).to_string())
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
    Ok(json!({ "dequantized": report.dequantized, "work": work(&report.work) }).to_string())
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
    Ok(json!({
        "dense": report.dense,
        "from_int8": report.from_int8,
        "bytes_before": report.bytes_before,
        "bytes_after": report.work.file_bytes,
        "work": work(&report.work),
    })
    .to_string())
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
    let causes: serde_json::Map<String, Value> =
        found.causes().into_iter().map(|(cause, bytes)| (cause.to_string(), bytes.into())).collect();
    let findings: Vec<String> = found.findings().iter().map(ToString::to_string).collect();
    let tensors: Vec<Value> = found
        .weights
        .iter()
        .map(|weight| {
            json!({
                "name": weight.name,
                "role": weight.role.name(),
                "storage": weight.storage.to_string(),
                "shape": weight.shape,
                "bytes": weight.bytes(),
                "bits_per_weight": weight.bits_per_weight(),
                "level_bits": weight.levels.map(Levels::bits),
            })
        })
        .collect();
    Ok(json!({
        "method": found.method,
        "files": found.files,
        "total_bytes": found.file_bytes,
        "bits_per_weight": found.bits_per_weight(),
        "causes": causes,
        "findings": findings,
        "tensors": tensors,
    })
    .to_string())
}

#[pyfunction(name = "verify")]
pub fn verify_checkpoint(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    let reports = py
        .detach(|| {
            let checkpoint = Checkpoint::open(&path)?;
            let check = |shard: &flexq_core::checkpoint::Shard| {
                Ok((shard.name().to_owned(), verify::verify(shard.file(), &|_| ())?))
            };
            checkpoint.shards().iter().map(check).collect::<Result<Vec<_>, Error>>()
        })
        .map_err(PyError::from)?;
    let faults: Vec<String> = reports
        .iter()
        .flat_map(|(name, report)| report.faults.iter().map(move |fault| format!("{name}: {fault}")))
        .collect();
    Ok(json!({
        "intact": faults.is_empty(),
        "files": reports.len(),
        "tensors": reports.iter().map(|(_, report)| report.entries).sum::<usize>(),
        "bytes": reports.iter().map(|(_, report)| report.bytes).sum::<u64>(),
        "faults": faults,
    })
    .to_string())
}
