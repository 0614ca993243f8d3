"""Tables on a terminal and progress lines, with `rich` where it is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

try:
    import rich.box
    import rich.console
    import rich.progress
    import rich.table
except ImportError:
    RICH = False
else:
    RICH = True


def print_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints rows of text; every column but the first is set to the right."""
    if RICH:
        table = rich.table.Table(title=title, box=rich.box.SIMPLE, title_justify="left")
        for index, header in enumerate(headers):
            table.add_column(header, justify="right" if index else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        width = None if sys.stdout.isatty() else 120
        rich.console.Console(width=width).print(table)
        return
    widths = [max(len(row[i]) for row in [headers, *rows]) for i in range(len(headers))]
    print(f"\n{title}")
    for row in [headers, *rows]:
        first = row[0].ljust(widths[0])
        print(
            "  ".join(
                [first, *(text.rjust(w) for text, w in zip(row[1:], widths[1:], strict=True))]
            )
        )


@contextmanager
def progress(label: str) -> Iterator[Callable[[float], None]]:
    """A bar on a terminal, silence elsewhere; yields what takes the finished share, 0 to 1."""
    if not (RICH and sys.stderr.isatty()):
        yield lambda _: None
        return
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(console=console, transient=True) as bar:
        task = bar.add_task(label, total=1.0)
        yield lambda share: bar.update(task, completed=share)
