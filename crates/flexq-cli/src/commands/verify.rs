//! `verify`: is every bit of a packed checkpoint what was written?

use flexq_core::report;
use flexq_core::verify::verify_checkpoint;

use crate::args::VerifyArgs;
use crate::console::Console;
use crate::exit::{Code, Failure};
use crate::human;

pub fn run(args: &VerifyArgs, console: &Console) -> Result<Code, Failure> {
    let reports = verify_checkpoint(&args.input)?;
    let intact = reports.iter().all(|(_, report)| report.is_intact());
    console.result(
        || report::verification(&reports),
        |out| {
            for (name, report) in &reports {
                writeln!(
                    out,
                    "{name}: {}, {}, {}",
                    human::count(report.entries as u64, "tensor"),
                    human::bytes(report.bytes),
                    if report.is_intact() { "intact" } else { "DAMAGED" },
                )?;
                for fault in &report.faults {
                    writeln!(out, "  {fault}")?;
                }
            }
            Ok(())
        },
    )?;
    Ok(if intact { Code::Success } else { Code::Damaged })
}
