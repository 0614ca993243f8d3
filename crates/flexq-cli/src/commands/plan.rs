//! `plan`: exact sizes before any work.

use std::path::Path;

use flexq_core::Error;
use flexq_core::checkpoint::CheckpointError;
use flexq_core::pipeline::{PackOptions, Summary, plan_checkpoint, plan_config};
use serde_json::json;

use super::summary;
use crate::args::PlanArgs;
use crate::console::Console;
use crate::exit::{Code, Failure};

pub fn run(args: &PlanArgs, console: &Console) -> Result<Code, Failure> {
    let options = args.quantization.options()?;
    let (summary, source) = plan(&args.input, &options)?;
    console.result(
        || json!({ "input": args.input, "source": source, "result": summary::json(&summary) }),
        |out| {
            writeln!(out, "Plan for {}, from {source}", args.input.display())?;
            summary::write(out, &summary)
        },
    )?;
    Ok(Code::Success)
}

/// From the weights where there are any, else from the configuration.
fn plan(input: &Path, options: &PackOptions) -> Result<(Summary, &'static str), Error> {
    if input.extension().is_some_and(|extension| extension == "json") {
        return Ok((plan_config(input, options)?, "the configuration"));
    }
    match plan_checkpoint(input, options) {
        Err(Error::Checkpoint { fault: CheckpointError::NoWeights, .. }) => {
            Ok((plan_config(input, options)?, "the configuration"))
        }
        planned => Ok((planned?, "the headers of its weights")),
    }
}
