//! What writing a checkpoint took.

use std::io::{self, Write};

use flexq_core::pipeline::WriteReport;

use crate::human;

/// The lines after a summary.
pub fn write(out: &mut dyn Write, report: &WriteReport) -> io::Result<()> {
    let rate = report.bytes_read as f64 / report.duration.as_secs_f64().max(1e-9);
    writeln!(
        out,
        "  time      {}, {} read per second, {}",
        human::duration(report.duration),
        human::bytes(rate as u64),
        human::count(report.threads as u64, "thread"),
    )?;
    if !report.resumed.is_empty() {
        writeln!(
            out,
            "  resumed   {} finished by an earlier run",
            human::count(report.resumed.len() as u64, "file")
        )?;
    }
    if !report.copied.is_empty() {
        writeln!(out, "  copied    {}", human::count(report.copied.len() as u64, "other file"))?;
    }
    if !report.left_out.is_empty() {
        let names: Vec<_> = report.left_out.iter().map(|path| path.display().to_string()).collect();
        writeln!(out, "  left out  {} (weights in other formats)", names.join(", "))?;
    }
    Ok(())
}
