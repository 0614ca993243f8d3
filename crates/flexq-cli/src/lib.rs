//! The command line of flexq, as a library: the binary and the Python script call [`run`].
//!
//! Every command parses its arguments ([`args`]), calls `flexq-core`, and renders what it
//! got as text or as JSON. Results go to standard output, progress and errors to standard
//! error. Nothing here ends the process.

mod args;
mod commands;
mod console;
mod exit;
mod human;
mod table;

use clap::Parser;

use args::Arguments;
use console::Console;
pub use exit::Code;

/// Runs `flexq-pack` with the given arguments, the program name first, and returns the exit
/// code, which is one of [`Code`].
#[must_use]
pub fn run(args: &[String]) -> u8 {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            // help and version come as errors too; a closed pipe is no reason to complain
            drop(error.print());
            return if error.use_stderr() { Code::Usage } else { Code::Success } as u8;
        }
    };
    let console = Console::new(&arguments.output);
    match commands::run(&arguments.command, &console) {
        Ok(code) => code as u8,
        Err(failure) => console.fail(&failure) as u8,
    }
}
