"""A chart and a table of a record of `products.py`.

    python benches/cpu/chart.py benches/record/CPU/DATE.csv docs/cpu-products.png

The table goes to standard output, as Markdown.
"""

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ENGINES = {
    "flexq A8": "#1a7f5a",
    "flexq A16": "#8cc9ad",
    "ggml Q6_K": "#c4602d",
    "torch bf16": "#6b7a99",
}


def main(record: Path, picture: Path) -> None:
    """Reads the record, draws the picture, prints the table."""
    times: dict[tuple[str, str, int], float] = {}
    read: dict[str, float] = {}
    weights: dict[tuple[str, str], float] = {}
    with record.open(newline="") as file:
        for row in csv.DictReader(file):
            shape = f"{row['n']}x{row['k']}"
            microseconds = float(row["median_us"])
            times[shape, row["engine"], int(row["m"])] = microseconds
            read[shape] = float(row["read_gb_s"])
            weights[shape, row["engine"]] = float(row["weight_gb_s"]) * microseconds / 1e3
    shapes = list(dict.fromkeys(shape for shape, _, _ in times))
    rows = sorted({m for _, _, m in times})
    engines = [name for name in ENGINES if any(name == engine for _, engine, _ in times)]

    figure, panels = plt.subplots(1, len(shapes), figsize=(4.2 * len(shapes), 3.6), squeeze=False)
    for axes, shape in zip(panels[0], shapes, strict=True):
        for name in engines:
            values = [times[shape, name, m] / 1e3 for m in rows]
            axes.plot(rows, values, marker="o", ms=3, color=ENGINES[name], label=name)
        floor = weights[shape, "flexq A8"] / read[shape]
        axes.axhline(floor, color="black", lw=0.8, ls=":", label="6-bit weights read once")
        axes.set(
            title=shape.replace("x", " x "),
            xlabel="rows of activations",
            xscale="log",
            yscale="log",
        )
        axes.set_xticks(rows, [str(m) for m in rows])
        axes.minorticks_off()
    panels[0][0].set_ylabel("milliseconds")
    panels[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(picture, dpi=130)

    print("| N x K | M |", " | ".join(f"{name}, us" for name in engines), end=" | ")
    print(" | ".join(f"{name} / A8" for name in engines[2:]), "|")
    print("|", " | ".join(["---"] * (2 + len(engines) + len(engines[2:]))), "|")
    for shape in shapes:
        for m in rows:
            own = times[shape, "flexq A8", m]
            cells = [f"{times[shape, name, m]:.0f}" for name in engines]
            ratios = [f"{times[shape, name, m] / own:.2f}" for name in engines[2:]]
            print("|", " | ".join([shape, str(m), *cells, *ratios]), "|")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
