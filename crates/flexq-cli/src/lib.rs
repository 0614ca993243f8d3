//! The command line of flexq, as a library: the binary and the Python script call [`run`].

use std::process::ExitCode;

/// Runs `flexq-pack` with the given arguments, the program name first.
#[must_use]
pub fn run(_args: &[String]) -> ExitCode {
    ExitCode::SUCCESS
}
