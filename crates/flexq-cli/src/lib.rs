//! The command line of flexq, as a library: the binary and the Python script call [`run`].

/// Runs `flexq-pack` with the given arguments, the program name first, and returns the exit code.
#[must_use]
pub fn run(_args: &[String]) -> u8 {
    0
}
