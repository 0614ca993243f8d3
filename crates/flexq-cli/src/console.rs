//! Where output goes: results to standard output, progress and errors to standard error.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;

use flexq_core::pipeline::{Event, Progress};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::args::OutputArgs;
use crate::exit::{Code, Failure};

/// How this run talks.
pub struct Console {
    json: bool,
    quiet: bool,
}

impl Console {
    pub fn new(args: &OutputArgs) -> Self {
        Self { json: args.json, quiet: args.quiet }
    }

    /// Prints a result: `json` for machines, `text` for people, who may also want silence.
    pub fn result(
        &self,
        json: impl FnOnce() -> Value,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        if self.json {
            writeln!(out, "{:#}", json())?;
        } else if !self.quiet {
            text(&mut out)?;
        }
        out.flush()?;
        Ok(())
    }

    /// Reports a failure and gives its exit code.
    pub fn fail(&self, failure: &Failure) -> Code {
        let code = failure.code();
        if code != Code::Success {
            let mut err = io::stderr().lock();
            let message = failure.to_string();
            let written = if self.json {
                writeln!(err, "{}", json!({ "error": message, "code": code as u8 }))
            } else {
                writeln!(err, "error: {message}")
            };
            // nobody listens any more; the code still tells
            drop(written);
        }
        code
    }

    /// A listener for work whose name is the verb `what`.
    pub fn progress(&self, what: &'static str) -> Box<dyn Progress> {
        if self.quiet || self.json {
            Box::new(())
        } else if io::stderr().is_terminal() {
            Box::new(Bar::new())
        } else {
            Box::new(Lines { what })
        }
    }
}

/// A progress bar with rate and remaining time.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::no_length();
        let template = "{msg:32!} [{bar:30}] {decimal_bytes:>9}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left";
        // a template that fails to parse would be a fault of this line alone; the default still works
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(bar)
    }
}

impl Progress for Bar {
    fn report(&self, event: Event<'_>) -> ControlFlow<()> {
        match event {
            Event::Begin { bytes, .. } => self.0.set_length(bytes),
            Event::File { name } => self.0.set_message(name.to_owned()),
            Event::Kept { name, bytes } => {
                self.0.println(format!("{name}: finished by an earlier run, intact"));
                // not counted as speed
                self.0.set_length(self.0.length().unwrap_or(bytes).saturating_sub(bytes));
            }
            Event::Bytes(bytes) => self.0.inc(bytes),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// One line per file.
struct Lines {
    what: &'static str,
}

impl Progress for Lines {
    fn report(&self, event: Event<'_>) -> ControlFlow<()> {
        let line = match event {
            Event::File { name } => format!("{} {name}", self.what),
            Event::Kept { name, .. } => format!("{name}: finished by an earlier run, intact"),
            _ => return ControlFlow::Continue(()),
        };
        // progress that nobody sees must not stop the work
        drop(writeln!(io::stderr().lock(), "{line}"));
        ControlFlow::Continue(())
    }
}
