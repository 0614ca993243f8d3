"""Charts as PNG files; needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flexq.eval.score import Score
from flexq.eval.simulate import Floats

INK, BLUE, RED = "#1f2933", "#2f6db5", "#c8553d"


def _figure(columns: int, width: float, height: float) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(1, columns, index + 1) for index in range(columns)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _bars(axis: Any, names: Sequence[str], values: Sequence[float], labels: Sequence[str]) -> None:
    """Horizontal bars, the first on top, each with its label at the end."""
    colours = [RED if name.startswith("w4") else BLUE for name in names]
    places = range(len(names))
    axis.barh(places, values, color=colours, height=0.66)
    axis.set_yticks(places, names)
    axis.invert_yaxis()
    for place, value, label in zip(places, values, labels, strict=True):
        axis.annotate(label, (value, place), (4, 0), textcoords="offset points", va="center")
    axis.margins(x=0.25)


def _losses(axis: Any, scores: Mapping[str, Score], reference: str) -> None:
    base = scores[reference].perplexity
    names = [name for name in scores if name != reference]
    losses = [100 * (scores[name].perplexity / base - 1) for name in names]
    _bars(axis, names, losses, [f"{loss:+.2f} %" for loss in losses])
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set_title(f"perplexity against {reference} ({base:.2f})", loc="left")
    axis.set_xlabel("% (less is better)")


def perplexities(path: str | Path, scores: Mapping[str, Score], reference: str) -> None:
    """Relative loss of perplexity of each variant."""
    figure, (axis,) = _figure(1, 7, 0.45 * len(scores) + 1.2)
    _losses(axis, scores, reference)
    figure.savefig(path, dpi=130)


def sizes_and_perplexities(
    path: str | Path, sizes: Mapping[str, int], scores: Mapping[str, Score], reference: str
) -> None:
    """Bytes of a model's forms beside what its variants lose."""
    figure, (left, right) = _figure(2, 11, 3.2)
    megabytes = [size / 1e6 for size in sizes.values()]
    _bars(left, list(sizes), megabytes, [f"{value:.2f} MB" for value in megabytes])
    left.set_title("size of the weights", loc="left")
    left.set_xlabel("MB")
    _losses(right, scores, reference)
    figure.savefig(path, dpi=130)


def heat_map(
    path: str | Path, values: Floats, layers: Sequence[str], projections: Sequence[str], title: str
) -> None:
    """Layers x projections on a logarithmic scale; NaN stays empty."""
    from matplotlib.colors import LogNorm

    figure, (axis,) = _figure(1, 1.1 * len(projections) + 2.5, 0.42 * len(layers) + 1.8)
    positive = values[np.isfinite(values) & (values > 0)]
    low, high = (positive.min(), positive.max()) if positive.size else (0.1, 1.0)
    image = axis.imshow(
        np.maximum(values, low),
        norm=LogNorm(low, max(high, low * 1.01)),
        cmap="magma",
        aspect="auto",
    )
    axis.set_xticks(range(len(projections)), projections, rotation=30, ha="right")
    axis.set_yticks(range(len(layers)), layers)
    middle = np.sqrt(low * high)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if value < middle else "black"
            axis.text(
                column, row, f"{value:.2g}", ha="center", va="center", color=colour, fontsize=8
            )
    axis.set_title(title, loc="left")
    figure.colorbar(image, ax=axis)
    figure.savefig(path, dpi=130)
