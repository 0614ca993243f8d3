//! The summary of a plan or of packing, as text.

use std::io::{self, Write};

use flexq_core::pipeline::{Summary, Totals};

use crate::human::{bits, count, grouped, percent};
use crate::table::Table;

/// The table of what became of the weights, and what it means.
pub fn write(out: &mut dyn Write, summary: &Summary) -> io::Result<()> {
    let (total, quantized, scheme) = (summary.total(), summary.quantized(), summary.scheme);
    writeln!(
        out,
        "  6-bit codes, groups of {}, rule {}, {} scales\n",
        scheme.group, scheme.rule, scheme.scale_type
    )?;
    let mut table = Table::new(&["part", "tensors", "weights", "bytes before", "bytes after", "bits"]);
    let mut row = |part: &str, totals: Totals| {
        table.row([
            part.to_owned(),
            grouped(totals.tensors),
            grouped(totals.weights),
            grouped(totals.bytes_before),
            grouped(totals.bytes_after),
            bits(totals.bits_per_weight()),
        ]);
    };
    row("quantized", quantized);
    for (reason, totals) in summary.kept() {
        row(&format!("kept: {reason}"), totals);
    }
    if summary.tied().tensors > 0 {
        row("tied: stored once", summary.tied());
    }
    row("all tensors", total);
    let files = count(summary.files.len() as u64, "header");
    table.row([files, String::new(), String::new(), String::new(), grouped(summary.header_bytes())]);
    let after = summary.file_bytes();
    table.row([
        "total".to_owned(),
        String::new(),
        String::new(),
        grouped(total.bytes_before),
        grouped(after),
    ]);
    table.write(out)?;

    let theory = summary.theory_bytes();
    writeln!(
        out,
        "\n  theory    {} bytes at 6 bits per quantized weight; scales add {}",
        grouped(theory),
        grouped(quantized.bytes_after.saturating_sub(theory)),
    )?;
    writeln!(
        out,
        "  size      {} of what it was ({} to {})",
        percent(after, total.bytes_before),
        crate::human::bytes(total.bytes_before),
        crate::human::bytes(after),
    )?;
    writeln!(out, "  coverage  {} of all weights quantized", percent(quantized.weights, total.weights))
}
