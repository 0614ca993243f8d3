"""Several processes set up together and are timed one at a time.

Compiling a model takes a processor a minute, and timing it takes the whole GPU a second. Processes
that were given the same directory wait until all are ready or have ended, and then take turns.
"""

import atexit
import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

LONGEST_WAIT = 240
"""Seconds after which a process no longer waits for others, which may have been killed."""


def take_part(directory: Path | None) -> None:
    """Lets the others not wait for a process that ends before its turn."""
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        atexit.register((directory / f"{os.getpid()}.ready").touch)


@contextlib.contextmanager
def turn(directory: Path | None, processes: int) -> Iterator[None]:
    """Holds while no other process of the same directory is timed.

    Args:
        directory: empty at first; nothing to wait for without one.
        processes: how many have to be ready.
    """
    if directory is None:
        yield
        return
    (directory / f"{os.getpid()}.ready").touch()
    end = time.monotonic() + LONGEST_WAIT
    while len(list(directory.glob("*.ready"))) < processes and time.monotonic() < end:
        time.sleep(0.05)
    with (directory / "turn").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
