//! Reports as JSON, the same on the command line (`--json`) and in Python.
//!
//! `docs/cli.md` lists the fields. Sizes are bytes, durations seconds.

use serde_json::{Map, Value, json};

use crate::inspect::{Inspection, Levels};
use crate::interop::{ExportReport, ImportReport};
use crate::pipeline::{Fate, PackReport, Summary, Totals, WriteReport};
use crate::verify::Report as FileReport;

/// What became, or would become, of every tensor.
#[must_use]
pub fn summary(summary: &Summary) -> Value {
    let kept: Map<String, Value> =
        summary.kept().into_iter().map(|(reason, sum)| (reason.to_string(), totals(sum))).collect();
    let files: Vec<Value> = summary
        .files
        .iter()
        .map(|file| json!({ "name": file.name, "bytes": file.bytes, "header_bytes": file.header_bytes }))
        .collect();
    let tensors: Vec<Value> = summary
        .tensors
        .iter()
        .map(|tensor| {
            let (fate, why) = match &tensor.fate {
                Fate::Quantized => ("quantized", None),
                Fate::Kept(reason) => ("kept", Some(reason.to_string())),
                Fate::Tied(other) => ("tied", Some(other.clone())),
            };
            json!({
                "name": tensor.name,
                "dtype": tensor.dtype.name(),
                "shape": tensor.shape,
                "fate": fate,
                "why": why,
                "bytes_before": tensor.bytes_before,
                "bytes_after": tensor.bytes_after,
            })
        })
        .collect();
    json!({
        "bits": 6,
        "group_size": summary.scheme.group.to_string(),
        "scale_rule": summary.scheme.rule.name(),
        "scale_type": summary.scheme.scale_type.name(),
        "bytes_before": summary.total().bytes_before,
        "tensor_bytes": summary.total().bytes_after,
        "header_bytes": summary.header_bytes(),
        "total_bytes": summary.file_bytes(),
        "theory_bytes": summary.theory_bytes(),
        "bits_per_weight": summary.quantized().bits_per_weight(),
        "quantized": totals(summary.quantized()),
        "kept": kept,
        "tied": totals(summary.tied()),
        "files": files,
        "tensors": tensors,
    })
}

fn totals(totals: Totals) -> Value {
    json!({
        "tensors": totals.tensors,
        "weights": totals.weights,
        "bytes_before": totals.bytes_before,
        "bytes_after": totals.bytes_after,
        "bits_per_weight": totals.bits_per_weight(),
    })
}

/// What writing a checkpoint took.
#[must_use]
pub fn work(report: &WriteReport) -> Value {
    json!({
        "total_bytes": report.file_bytes,
        "seconds": report.duration.as_secs_f64(),
        "threads": report.threads,
        "bytes_read": report.bytes_read,
        "resumed": report.resumed,
        "copied": report.copied,
        "left_out": report.left_out,
    })
}

/// What packing did.
#[must_use]
pub fn pack(report: &PackReport) -> Value {
    with_work(summary(&report.summary), &report.work)
}

/// What unpacking did.
#[must_use]
pub fn unpack(report: &WriteReport) -> Value {
    with_work(json!({}), report)
}

/// What exporting did.
#[must_use]
pub fn export(report: &ExportReport) -> Value {
    with_work(json!({ "dequantized": report.dequantized }), &report.work)
}

/// What importing did.
#[must_use]
pub fn import(report: &ImportReport) -> Value {
    let counts = json!({
        "dense": report.dense,
        "from_int8": report.from_int8,
        "bytes_before": report.bytes_before,
    });
    with_work(counts, &report.work)
}

fn with_work(mut report: Value, written: &WriteReport) -> Value {
    report["work"] = work(written);
    report
}

/// Where the bytes of a checkpoint go.
#[must_use]
pub fn inspection(found: &Inspection) -> Value {
    let causes: Map<String, Value> =
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
    json!({
        "method": found.method,
        "files": found.files,
        "total_bytes": found.file_bytes,
        "bits_per_weight": found.bits_per_weight(),
        "config_bits": found.config_bits,
        "theory_bytes": found.theory_and_stored().0,
        "quantized_bytes": found.theory_and_stored().1,
        "causes": causes,
        "findings": findings,
        "tensors": tensors,
    })
}

/// What a check of the named files found.
#[must_use]
pub fn verification(files: &[(String, FileReport)]) -> Value {
    let reports: Vec<Value> = files
        .iter()
        .map(|(name, report)| {
            json!({
                "name": name,
                "entries": report.entries,
                "quantized": report.quantized,
                "bytes": report.bytes,
                "faults": report.faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "intact": files.iter().all(|(_, report)| report.is_intact()), "files": reports })
}
