//! `flexq-pack`, the command line of flexq.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(flexq_cli::run(&std::env::args().collect::<Vec<_>>()))
}
