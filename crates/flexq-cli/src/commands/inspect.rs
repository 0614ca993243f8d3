//! `inspect`: where do the bytes of a checkpoint go, ours or anybody's?

use flexq_core::inspect::{Inspection, Levels, Weight, inspect};
use serde_json::{Map, Value, json};

use crate::args::InspectArgs;
use crate::console::Console;
use crate::exit::{Code, Failure};
use crate::human::{bits, bytes, grouped, percent};
use crate::table::Table;

pub fn run(args: &InspectArgs, console: &Console) -> Result<Code, Failure> {
    let found = inspect(&args.input, !args.headers)?;
    console.result(
        || json(&found),
        |out| {
            let method = found.method.as_deref().unwrap_or("not quantized");
            writeln!(out, "{}: {method}, {}\n", args.input.display(), bytes(found.file_bytes))?;
            if args.tensors {
                tensors(&found.weights).write(out)?;
                writeln!(out)?;
            }
            let mut table = Table::new(&["what the bytes are", "bytes", "share"]);
            for (cause, size) in found.causes() {
                table.row([cause.to_string(), grouped(size), percent(size, found.file_bytes)]);
            }
            table.row(["total".to_owned(), grouped(found.file_bytes), String::new()]);
            table.write(out)?;
            writeln!(out, "\n  {} bits per weight over everything", bits(found.bits_per_weight()))?;
            for finding in found.findings() {
                writeln!(out, "  {finding}")?;
            }
            Ok(())
        },
    )?;
    Ok(Code::Success)
}

fn tensors(weights: &[Weight]) -> Table {
    let mut table = Table::new(&["tensor", "stored as", "bytes", "bits", "bits used"]).words(1);
    for weight in weights {
        table.row([
            weight.name.clone(),
            weight.storage.to_string(),
            grouped(weight.bytes()),
            bits(weight.bits_per_weight()),
            weight.levels.map(|levels| levels.bits().to_string()).unwrap_or_default(),
        ]);
    }
    table
}

/// The same for machines.
fn json(found: &Inspection) -> Value {
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
        "causes": causes,
        "findings": findings,
        "tensors": tensors,
    })
}
