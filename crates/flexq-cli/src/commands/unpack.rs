//! `unpack`: 6 bits in, floats out.

use flexq_core::FloatType;
use flexq_core::pipeline::unpack;
use flexq_core::report;

use super::work;
use crate::args::UnpackArgs;
use crate::console::Console;
use crate::exit::{Code, Failure};
use crate::human;

pub fn run(args: &UnpackArgs, console: &Console) -> Result<Code, Failure> {
    let dtype = args.dtype.as_deref().map(str::parse::<FloatType>).transpose()?;
    let options = args.write.options();
    let report = {
        let progress = console.progress("unpacking");
        unpack(&args.input, &args.output, dtype, options, progress.as_ref())?
    };
    console.result(
        || report::unpack(&report),
        |out| {
            let (input, output) = (args.input.display(), args.output.display());
            writeln!(out, "Unpacked {input} into {output}, {}", human::bytes(report.file_bytes))?;
            work::write(out, &report)
        },
    )?;
    Ok(Code::Success)
}
