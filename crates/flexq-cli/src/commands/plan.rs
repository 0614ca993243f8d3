//! `plan`: exact sizes before any work.

use flexq_core::pipeline::plan;
use flexq_core::report;

use super::summary;
use crate::args::PlanArgs;
use crate::console::Console;
use crate::exit::{Code, Failure};

pub fn run(args: &PlanArgs, console: &Console) -> Result<Code, Failure> {
    let options = args.quantization.options()?;
    let (summary, source) = plan(&args.input, &options)?;
    console.result(
        || report::summary(&summary),
        |out| {
            writeln!(out, "Plan for {}, from {source}", args.input.display())?;
            summary::write(out, &summary)
        },
    )?;
    Ok(Code::Success)
}
