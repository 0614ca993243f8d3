"""`python -m flexq {eval,analyze,demo}`."""

from __future__ import annotations

import argparse
import sys

from flexq import CudaError, demo
from flexq.eval import analyze, evaluate

COMMANDS = {
    "eval": (evaluate, "what quantization costs, in perplexity"),
    "analyze": (analyze, "which layers are sensitive, and a policy for them"),
    "demo": (demo, "pack, verify, open and run a model"),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, or 1 with one line on what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m flexq")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    parsed = parser.parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except (OSError, ValueError, ImportError, CudaError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
