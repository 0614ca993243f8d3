"""`python -m flexq eval`: what quantization costs, in perplexity."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import flexq
from flexq.eval import chart, hugging_face
from flexq.eval.llama import LlamaConfig
from flexq.eval.report import print_table, progress
from flexq.eval.score import Model, Score, score
from flexq.eval.text import load_text
from flexq.eval.variant import STANDARD, Build, Variant
from flexq.policy import PAPER, Policy

Through = Literal["auto", "numpy", "transformers"]

SAMPLE = Path(__file__).parent / "sample.txt"
"""The text that is read when none is given: an extract of Persuasion, public domain."""


def evaluate(
    model: str | Path,
    *,
    text: str | Path = SAMPLE,
    reference: str | Path | None = None,
    variants: list[str] | None = None,
    policy: Policy | None = None,
    build: Build | None = None,
    through: Through = "auto",
    limit: int | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> dict[str, Score]:
    """Scores a model under several variants on one text; the first variant is the reference.

    Args:
        model: a directory, plain or packed.
        text: plain text, or `.jsonl` (see `load_text`).
        reference: the unquantized model, which `float` then stands for.
        variants: names (see `Variant.parse`); `STANDARD`, or what a packed model allows.
        policy: that of `ax`; else the one in the model's config.json, else the paper's.
        build: preset, device, and whether to simulate.
        through: what runs the model: `numpy` (Llama, Mistral, Qwen2), `transformers` (whatever
            it knows), or `auto`: the first where it can.
        limit: tokens to score.
        progress: told the finished share, 0 to 1.

    Raises:
        OSError: for missing files.
        ValueError: for an unknown variant, or one that packed weights cannot give.
    """
    model = Path(model)
    tensors = flexq.load_file(model)
    packed = any(isinstance(tensor, flexq.QTensor) for tensor in tensors.values())
    if variants is None:
        variants = [name for name in STANDARD if not packed or name.startswith("w6")]
        if packed and reference is not None:
            variants.insert(0, "float")
    if policy is None:
        own = Policy.load(model)
        policy = own if packed and own != Policy() else PAPER
    sequences = load_text(text, model, limit)
    build = build or Build()
    if through == "auto":
        through = "numpy" if LlamaConfig.is_known(model) else "transformers"
    models: dict[str, Model] = {}
    for name in variants:
        variant = Variant.parse(name, policy)
        other = reference is not None and variant.weight_bits is None
        source = Path(reference) if other and reference is not None else model
        if through == "transformers":
            models[name] = hugging_face.load(source, variant, build)
            continue
        models[name] = build.model(source, flexq.load_file(source) if other else tensors, variant)
    return score(models, variants[0], sequences, progress)


def rows(scores: dict[str, Score]) -> list[list[str]]:
    """The table of scores, the first being the reference."""
    base = next(iter(scores.values()))
    return [
        [
            name,
            f"{s.perplexity:.4f}",
            f"{s.perplexity / base.perplexity - 1:+.3%}",
            f"{s.kl:.6f}",
            f"{s.top1:.2%}",
            f"{s.seconds:.1f}",
        ]
        for name, s in scores.items()
    ]


HEADERS = ["variant", "perplexity", "change", "KL, nats", "same top-1", "seconds"]


def as_json(scores: dict[str, Score]) -> dict[str, Any]:
    """The figures of a run, for machines."""
    return {
        name: {
            "tokens": s.tokens,
            "nats": s.nats,
            "perplexity": s.perplexity,
            "kl": s.kl,
            "top1": s.top1,
            "seconds": s.seconds,
        }
        for name, s in scores.items()
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("model", type=Path, help="model directory, plain or packed by flexq")
    parser.add_argument("--text", type=Path, default=SAMPLE, help="plain text or .jsonl")
    parser.add_argument("--reference", type=Path, help="the unquantized model, for a packed one")
    parser.add_argument(
        "--variants",
        help=f"comma-separated; default {','.join(STANDARD)}; options as in w6a8:g64:mse",
    )
    parser.add_argument("--policy", type=Path, help="policy file of the variants with ax")
    parser.add_argument(
        "--preset",
        choices=["linear", "full"],
        default="linear",
        help="what is quantized, as flexq-pack means it",
    )
    parser.add_argument(
        "--simulate", action="store_true", help="round in float32, no flexq products"
    )
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="what multiplies packed weights"
    )
    parser.add_argument(
        "--through",
        choices=["auto", "numpy", "transformers"],
        default="auto",
        help="what runs the model; by default transformers where numpy cannot",
    )
    parser.add_argument("--limit", type=int, help="stop after this many tokens")
    parser.add_argument("--json", action="store_true", help="print figures for machines")
    parser.add_argument("--chart", type=Path, help="save a PNG")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    with progress("scoring") as tell:
        scores = evaluate(
            arguments.model,
            text=arguments.text,
            reference=arguments.reference,
            variants=arguments.variants.split(",") if arguments.variants else None,
            policy=Policy.load(arguments.policy) if arguments.policy else None,
            build=Build(arguments.preset, arguments.simulate, arguments.device),
            through=arguments.through,
            limit=arguments.limit,
            progress=tell,
        )
    if arguments.json:
        print(json.dumps(as_json(scores), indent=2))
    else:
        tokens = next(iter(scores.values())).tokens
        print_table(
            f"{arguments.model} on {arguments.text.name}, {tokens:,} tokens", HEADERS, rows(scores)
        )
    if arguments.chart:
        chart.perplexities(arguments.chart, scores, next(iter(scores)))
    return 0
