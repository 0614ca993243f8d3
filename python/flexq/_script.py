"""The `flexq-pack` command: hands its arguments to the command-line library."""

import signal
import sys

from flexq._flexq import run_cli


def main() -> None:
    """Runs `flexq-pack` with the arguments of this process and exits with its code."""
    # the work happens outside the interpreter, where Python's own handler would not be heard
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(run_cli(sys.argv))
