//! `verify`: is every bit of a packed checkpoint what was written?

use flexq_core::checkpoint::Checkpoint;
use flexq_core::verify::{Report, verify};
use serde_json::{Value, json};

use crate::args::VerifyArgs;
use crate::console::Console;
use crate::exit::{Code, Failure};
use crate::human;

pub fn run(args: &VerifyArgs, console: &Console) -> Result<Code, Failure> {
    let checkpoint = Checkpoint::open(&args.input)?;
    let mut reports: Vec<(&str, Report)> = Vec::new();
    for shard in checkpoint.shards() {
        reports.push((shard.name(), verify(shard.file(), &|_| ())?));
    }
    let intact = reports.iter().all(|(_, report)| report.is_intact());
    console.result(
        || json!({ "input": args.input, "intact": intact, "files": reports.iter().map(json_of).collect::<Vec<_>>() }),
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

fn json_of((name, report): &(&str, Report)) -> Value {
    let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    json!({
        "name": name,
        "entries": report.entries,
        "quantized": report.quantized,
        "bytes": report.bytes,
        "faults": faults,
    })
}
