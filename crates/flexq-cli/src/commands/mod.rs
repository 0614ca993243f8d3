//! One module per command.

mod completions;
mod export;
mod import;
mod inspect;
mod pack;
mod plan;
mod summary;
mod unpack;
mod verify;
mod work;

use crate::args::Command;
use crate::console::Console;
use crate::exit::{Code, Failure};

/// Runs `command`.
pub fn run(command: &Command, console: &Console) -> Result<Code, Failure> {
    match command {
        Command::Pack(args) => pack::run(args, console),
        Command::Plan(args) => plan::run(args, console),
        Command::Inspect(args) => inspect::run(args, console),
        Command::Verify(args) => verify::run(args, console),
        Command::Unpack(args) => unpack::run(args, console),
        Command::Export(args) => export::run(args, console),
        Command::Import(args) => import::run(args, console),
        Command::Completions { shell } => completions::run(*shell),
    }
}
