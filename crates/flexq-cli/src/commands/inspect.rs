//! `inspect`: where do the bytes of a checkpoint go, ours or anybody's?

use flexq_core::inspect::{Weight, inspect};
use flexq_core::report;

use crate::args::InspectArgs;
use crate::console::Console;
use crate::exit::{Code, Failure};
use crate::human::{bits, bytes, grouped, percent};
use crate::table::Table;

pub fn run(args: &InspectArgs, console: &Console) -> Result<Code, Failure> {
    let found = inspect(&args.input, !args.headers)?;
    console.result(
        || report::inspection(&found),
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
            let (theory, stored) = found.theory_and_stored();
            if stored > 0 {
                let says =
                    if found.config_bits.is_some() { "as configured" } else { "as the levels suggest" };
                writeln!(
                    out,
                    "  quantized weights: {} bytes in theory at {} bits {says}, {} stored with scales",
                    grouped(theory),
                    found.config_bits.unwrap_or(6),
                    grouped(stored),
                )?;
            }
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
