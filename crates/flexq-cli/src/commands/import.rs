//! `import`: codes and scales of another tool in our format.

use flexq_core::interop::import_compressed_tensors;
use flexq_core::report;

use super::work;
use crate::args::ImportArgs;
use crate::console::Console;
use crate::exit::{Code, Failure};
use crate::human;

pub fn run(args: &ImportArgs, console: &Console) -> Result<Code, Failure> {
    let options = args.write.options();
    let report = {
        let progress = console.progress("importing");
        import_compressed_tensors(&args.input, &args.output, options, progress.as_ref())?
    };
    console.result(
        || report::import(&report),
        |out| {
            writeln!(out, "Imported {} into {}", args.input.display(), args.output.display())?;
            writeln!(
                out,
                "  weights   {} of int8 codes made dense, {} dense already; codes and scales unchanged",
                human::count(report.from_int8 as u64, "tensor"),
                human::count(report.dense as u64, "tensor"),
            )?;
            let (before, after) = (report.bytes_before, report.work.file_bytes);
            writeln!(
                out,
                "  size      {} of what it was ({} to {} bytes)",
                human::percent(after, before),
                human::grouped(before),
                human::grouped(after),
            )?;
            work::write(out, &report.work)
        },
    )?;
    Ok(Code::Success)
}
