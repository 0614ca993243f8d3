//! `pack`: floats in, 6 bits out.

use flexq_core::pipeline::pack;
use flexq_core::report;

use super::{summary, work};
use crate::args::PackArgs;
use crate::console::Console;
use crate::exit::{Code, Failure};

pub fn run(args: &PackArgs, console: &Console) -> Result<Code, Failure> {
    let options = args.options()?;
    let report = {
        let progress = console.progress("packing");
        pack(&args.input, &args.output, &options, progress.as_ref())?
    };
    console.result(
        || report::pack(&report),
        |out| {
            writeln!(out, "Packed {} into {}", args.input.display(), args.output.display())?;
            summary::write(out, &report.summary)?;
            work::write(out, &report.work)
        },
    )?;
    Ok(Code::Success)
}
