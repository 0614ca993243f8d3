//! `completions`: a script that teaches a shell our commands and options.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Arguments;
use crate::exit::{Code, Failure};

pub fn run(shell: Shell) -> Result<Code, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "flexq-pack", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(Code::Success)
}
