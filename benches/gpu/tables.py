"""Print the tables of docs/kernels.md from records of `bench.py`.

    python benches/gpu/tables.py GRID.csv [RIVALS.csv] [FAMILIES.csv]

Ratios to cuBLAS fp16 by rows, shares of the floor by shape and points slower than cuBLAS; from a
run with rivals, their times over ours; from one with every family, the times of each. Means are
geometric, over the shapes of the record.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path
from statistics import geometric_mean

OURS = ("A16", "A8", "A8row")
ROWS = [
    (1, 1), (2, 2), (4, 4), (8, 8), (16, 16), (32, 32), (64, 64), (128, 128), (256, 512),
    (1024, 4096), (8192, 8192), (1, 16), (32, 128), (1024, 8192),
]  # fmt: skip
FLOOR_ROWS = (1, 8, 16)
SLOW = 0.97

Record = dict[tuple[int, int, int], dict[str, dict[str, str]]]


def read(path: Path) -> Record:
    """`[N, K, M]`, and then by contender: a line of the record."""
    record: Record = defaultdict(dict)
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            record[int(line["n"]), int(line["k"]), int(line["m"])][line["contender"]] = line
    return record


def table(head: list[str], lines: list[list[str]]) -> None:
    """Prints a table in Markdown."""
    for line in (head, ["---"] * len(head), *lines):
        print("| " + " | ".join(line) + " |")
    print()


def ratios(record: Record) -> None:
    """Times of cuBLAS fp16 over ours: mean (least), and where they are slower."""
    lines = []
    for low, high in ROWS:
        points = [ours for (_, _, m), ours in record.items() if low <= m <= high]
        if not points:
            continue
        cells = []
        for name in OURS:
            found = [float(ours[name]["ratio"]) for ours in points]
            cells.append(f"{geometric_mean(found):.2f} ({min(found):.2f})")
        lines.append([f"{low}" if low == high else f"{low} to {high}", *cells])
    table(["M", *OURS], lines)
    for name in OURS:
        slow = {
            at: ours[name]["ratio"]
            for at, ours in record.items()
            if float(ours[name]["ratio"]) < SLOW
        }
        print(f"{name}: {len(slow)} of {len(record)} points under {SLOW} times cuBLAS:")
        print(", ".join(f"{n}x{k} M {m} {r}" for (n, k, m), r in slow.items()) + "\n")


def floors(record: Record) -> None:
    """The floor over the time of A16, by shape."""
    lines = []
    for n, k in dict.fromkeys((n, k) for n, k, _ in record):
        megabytes = n * k * (6 + 16 / 128) / 8e6
        shares = [float(record[n, k, m]["A16"]["floor_fraction"]) for m in FLOOR_ROWS]
        lines.append([f"{n} x {k}", f"{megabytes:.1f}", *(f"{share:.0%}" for share in shares)])
    table(["N x K", "MB", *(f"M {m}" for m in FLOOR_ROWS)], lines)


def rivals(record: Record) -> None:
    """Times of others over ours at A16; of Humming's int8 activations also over A8row."""
    pairs = [(name, "A16") for name in ("humming_a16", "humming_a8", "cublas_int8", "cublas_fp8")]
    pairs.append(("humming_a8", "A8row"))
    lines = []
    for m in dict.fromkeys(m for _, _, m in record):
        points = [found for (_, _, rows), found in record.items() if rows == m]
        cells = []
        for theirs, ours in pairs:
            found = [float(p[theirs]["us"]) / float(p[ours]["us"]) for p in points if theirs in p]
            cells.append(f"{geometric_mean(found):.2f}" if found else "-")
        lines.append([str(m), *cells])
    table(["M", *(f"{theirs} over {ours}" for theirs, ours in pairs)], lines)


def families(record: Record) -> None:
    """Microseconds of every kernel family by rows, for each shape."""
    for n, k in dict.fromkeys((n, k) for n, k, _ in record):
        found = {m: times for (*shape, m), times in record.items() if shape == [n, k]}
        names = list(dict.fromkeys(name for times in found.values() for name in times))
        lines = [
            [name, *(times[name]["us"] if name in times else "-" for times in found.values())]
            for name in names
        ]
        table([f"{n} x {k}", *(f"M {m}" for m in found)], lines)


def main() -> int:
    """Every table that the records allow."""
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    record = read(Path(sys.argv[1]))
    ratios(record)
    floors(record)
    for path in sys.argv[2:]:
        others = read(Path(path))
        known = {name for found in others.values() for name in found}
        (families if "A8 planes" in known else rivals)(others)
    return 0


if __name__ == "__main__":
    sys.exit(main())
