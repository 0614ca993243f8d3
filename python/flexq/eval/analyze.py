"""`python -m flexq analyze`: which layers are sensitive, and a policy for them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np

import flexq
from flexq.eval import chart
from flexq.eval.checkpoint import to_float32
from flexq.eval.llama import EMBEDDING, HEAD, Llama
from flexq.eval.report import print_table, progress
from flexq.eval.sensitivity import Sensitivity, Subject, measure, recommend
from flexq.eval.simulate import Ids
from flexq.eval.text import batches, load_text
from flexq.eval.variant import Build, Variant, packed_linear

Source = Literal["text", "generated", "weights"]
OWN_TOKENS = 1024
"""Tokens of the model's own text, or of random ids, where none is given."""


def analyze(
    model: str | Path,
    *,
    source: Source = "weights",
    text: str | Path | None = None,
    limit: int = 4096,
    device: str = "cpu",
    head: bool = False,
    progress: Callable[[float], None] = lambda _: None,
) -> list[Sensitivity]:
    """Measures every linear layer of an unquantized Llama-architecture directory.

    Args:
        model: the directory.
        source: `text` follows each change to the predictions on the given text; `generated`
            does so on text that the model itself makes up; `weights` sends random tokens
            through the weights and looks at each layer's own output, the quickest way.
        text: plain text or `.jsonl`, for `source="text"`.
        limit: tokens of it.
        device: `cpu` or `cuda`, for flexq's products.
        head: whether the output head is analysed too.
        progress: told the finished share, 0 to 1.

    Raises:
        OSError: for missing files.
        ValueError: if the model is packed already.
    """
    model = Path(model)
    tensors = flexq.load_file(model)
    if any(isinstance(tensor, flexq.QTensor) for tensor in tensors.values()):
        raise ValueError(f"{model}: its weights are packed already: analyze the unquantized model")
    plain = Build().model(model, tensors, Variant("float"))
    names = [name for name in plain.linears if head or name != HEAD]
    weights = {name: to_float32(tensors[_stored(name, set(tensors))]) for name in names}
    packed = {name: flexq.quantize(w) for name, w in weights.items()}
    subject = Subject(plain, weights, packed, lambda q, bits: packed_linear(q, bits, 128, device))
    if source == "text":
        if text is None:
            raise ValueError("source 'text' needs a text")
        ids = load_text(text, model, limit)
    elif source == "generated":
        ids = own_text(plain)
    else:
        ids = random_ids(plain, len(to_float32(tensors[_stored(HEAD, set(tensors))])))
    return measure(subject, batches(ids), follow=source != "weights", progress=progress)


def _stored(name: str, tensors: set[str]) -> str:
    """The tensor of a module; a tied head has none of its own."""
    own = name + ".weight"
    return own if own in tensors else EMBEDDING


def own_text(model: Llama, seed: int = 0) -> list[Ids]:
    """Sequences that the model generates from its start token alone."""
    length = min(model.config.positions, 256)
    start = [model.config.bos]
    drawn = (
        [*start, *model.generate(start, length - 1, temperature=1.0, seed=seed + index)]
        for index in range(OWN_TOKENS // length)
    )
    return [np.array(ids, np.int64) for ids in drawn if len(ids) > 1]


def random_ids(model: Llama, vocabulary: int, seed: int = 0) -> list[Ids]:
    """Sequences of random tokens after the start token."""
    length = min(model.config.positions, 256)
    ids = np.random.default_rng(seed).integers(0, vocabulary, (OWN_TOKENS // length, length))
    ids[:, 0] = model.config.bos
    return list(ids)


HEADERS = ["layer", "weights", "worst", "max/RMS", "outliers", "A8", "A6", "KL A8", "KL A6", "cost"]


def rows(figures: list[Sensitivity]) -> list[list[str]]:
    """The table, the most sensitive layer first."""
    return [
        [
            one.name.removeprefix("model.layers."),
            f"{one.weight_error:.2%}",
            f"{one.worst_group:.2%}",
            f"{one.act_max:.1f}",
            f"{one.outlier_share:.3%}",
            f"{one.error[8]:.2%}",
            f"{one.error[6]:.2%}",
            f"{one.kl[8]:.6f}" if one.kl else "",
            f"{one.kl[6]:.6f}" if one.kl else "",
            f"{one.cost:.2g}",
        ]
        for one in sorted(figures, key=lambda one: one.cost, reverse=True)
    ]


def heat_map(path: Path, figures: list[Sensitivity]) -> None:
    """Saves the cost of 6-bit activations, layers x projections."""
    cells = {(*one.name.rsplit(".", 2)[::2],): one.cost for one in figures if one.name != HEAD}
    layers = list(dict.fromkeys(layer for layer, _ in cells))
    projections = list(dict.fromkeys(projection for _, projection in cells))
    values = np.full((len(layers), len(projections)), np.nan, np.float32)
    for (layer, projection), cost in cells.items():
        values[layers.index(layer), projections.index(projection)] = cost
    unit = "KL, nats a token" if figures[0].kl else "squared change of the layer's output"
    title = f"what 6-bit activations cost over 8-bit ones ({unit})"
    names = [layer.removeprefix("model.layers.") for layer in layers]
    chart.heat_map(path, values, names, projections, title)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("model", type=Path, help="directory of the unquantized model")
    parser.add_argument("--text", type=Path, help="measure on this text (plain or .jsonl)")
    parser.add_argument("--generated", action="store_true", help="measure on the model's own text")
    parser.add_argument("--limit", type=int, default=4096, help="tokens of the text (%(default)s)")
    parser.add_argument("--head", action="store_true", help="analyse the output head too")
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="what multiplies packed weights"
    )
    parser.add_argument(
        "--keep",
        type=float,
        default=0.1,
        help="share of the cost of 6-bit activations that the policy may leave (%(default)s)",
    )
    parser.add_argument("--policy", type=Path, help="write the recommended policy here")
    parser.add_argument("--chart", type=Path, help="save a heat map, PNG")
    parser.add_argument("--json", action="store_true", help="print figures for machines")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    source: Source = "weights"
    if arguments.text:
        source = "text"
    elif arguments.generated:
        source = "generated"
    with progress("measuring") as tell:
        figures = analyze(
            arguments.model,
            source=source,
            text=arguments.text,
            limit=arguments.limit,
            device=arguments.device,
            head=arguments.head,
            progress=tell,
        )
    policy = recommend(figures, arguments.keep)
    if arguments.json:
        layers = [asdict(one) | {"cost": one.cost} for one in figures]
        print(
            json.dumps({"source": source, "layers": layers, "policy": policy.to_config()}, indent=2)
        )
    else:
        print_table(f"{arguments.model}, from {source}", HEADERS, rows(figures))
        chosen = sum(policy.bits(one.name) == 8 for one in figures)
        print(
            f"policy: 8-bit activations in {chosen} of {len(figures)} layers, 6-bit in the others"
        )
        print(json.dumps(policy.to_config()))
    if arguments.policy:
        policy.save(arguments.policy)
    if arguments.chart:
        heat_map(arguments.chart, figures)
    return 0
