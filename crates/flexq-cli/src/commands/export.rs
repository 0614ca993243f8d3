//! `export`: the same codes in the format of another tool.

use flexq_core::interop::export_compressed_tensors;
use flexq_core::report;

use super::work;
use crate::args::ExportArgs;
use crate::console::Console;
use crate::exit::{Code, Failure};
use crate::human;

pub fn run(args: &ExportArgs, console: &Console) -> Result<Code, Failure> {
    let options = args.write.options();
    let report = {
        let progress = console.progress("exporting");
        export_compressed_tensors(&args.input, &args.output, options, progress.as_ref())?
    };
    console.result(
        || report::export(&report),
        |out| {
            let (input, output) = (args.input.display(), args.output.display());
            let size = human::bytes(report.work.file_bytes);
            writeln!(out, "Exported {input} into {output} for {}, {size}", args.to)?;
            if !report.dequantized.is_empty() {
                let names = report.dequantized.join(", ");
                writeln!(out, "  floats    {names} ({} quantizes only layers that multiply)", args.to)?;
            }
            work::write(out, &report.work)
        },
    )?;
    Ok(Code::Success)
}
