"""`python -m flexq demo`: a trained model goes from 16 bits to 6, is checked, and answers."""

from __future__ import annotations

import argparse
import math
import os
import platform
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import flexq
from flexq.eval import chart, evaluate
from flexq.eval.checkpoint import Tensors, to_float32
from flexq.eval.llama import Llama
from flexq.eval.report import print_table, progress
from flexq.eval.score import Score, score
from flexq.eval.sensitivity import weight_errors
from flexq.eval.text import load_text
from flexq.eval.tokenizer import load_tokenizer
from flexq.eval.variant import STANDARD, Build, Variant

MODEL = Path("examples/austen/model")
TEXT = Path("examples/austen/eval.txt")
PROMPTS = ("It is a truth universally acknowledged, that", "Emma could not help")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    start = time.perf_counter()
    model, output = arguments.model, arguments.out
    packed = output / "packed"
    output.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(packed, ignore_errors=True)
    print(f"flexq {flexq.__version__} on {platform.machine()}, {os.cpu_count()} processors")

    began = time.perf_counter()
    flexq.pack(model, packed, preset="full")
    middle = time.perf_counter()
    if not flexq.verify(packed)["intact"]:
        raise SystemExit(f"{packed} is damaged: see flexq-pack verify")
    checked = time.perf_counter()
    print(f"packed {model} in {1e3 * (middle - began):.0f} ms, ", end="")
    print(f"every checksum verified in {1e3 * (checked - middle):.0f} ms, now opened from {packed}")

    before, after = flexq.load_file(model), flexq.load_file(packed)
    sizes = print_sizes(model, packed, before, after)
    print_errors(before, after)
    scores = print_perplexities(model, packed, before, after, arguments)
    print_text(packed, after)

    picture = output / "demo.png"
    chart.sizes_and_perplexities(picture, sizes, scores, "float")
    print(f"\nchart: {picture}    total: {time.perf_counter() - start:.1f} s")
    return 0


def print_sizes(model: Path, packed: Path, before: Tensors, after: Tensors) -> dict[str, int]:
    """Bytes on disk beside what the bits amount to; returns bytes by storage."""
    quantized = {k: q for k, q in after.items() if isinstance(q, flexq.QTensor)}
    rest = sum(t.nbytes for k, t in after.items() if k not in quantized)
    weights = sum(math.prod(q.shape) for q in quantized.values())
    scales = sum(2 * q.shape[0] * -(-q.shape[1] // 128) for q in quantized.values())
    theory = {
        "bfloat16": 2 * weights + rest,
        "6-bit codes stored as int8": weights + scales + rest,
        "flexq, 6 bits": weights * 6 // 8 + scales + rest,
    }
    actual = {"bfloat16": weight_bytes(model), "flexq, 6 bits": weight_bytes(packed)}
    rows = [
        [
            name,
            f"{size:,}",
            f"{8 * (size - rest) / weights:.3f}",
            f"{actual[name]:,}" if name in actual else "",
            f"{actual[name] - size:,}" if name in actual else "",
        ]
        for name, size in theory.items()
    ]
    headers = ["weights as", "bytes in theory", "bits per weight", "bytes on disk", "file header"]
    print_table(f"Size of {weights:,} weights", headers, rows)
    return theory | actual


def weight_bytes(model: Path) -> int:
    """Bytes of a directory's safetensors files."""
    return sum(path.stat().st_size for path in model.glob("*.safetensors"))


def print_errors(before: Tensors, after: Tensors) -> None:
    """Relative RMS error of the stored weights, layer by layer."""
    kinds = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    rows: dict[str, dict[str, str]] = {}
    for name, q in after.items():
        if isinstance(q, flexq.QTensor):
            error, _ = weight_errors(to_float32(before[name]), q)
            module = name.removesuffix(".weight").removeprefix("model.")
            head, _, kind = module.rpartition(".")
            place = head.rpartition(".")[0] if kind in kinds else module
            rows.setdefault(place, {})[kind if kind in kinds else "all"] = f"{error:.2%}"
    columns = ["all", *kinds]
    table = [[place, *(cells.get(kind, "") for kind in columns)] for place, cells in rows.items()]
    print_table("Error of the 6-bit weights (RMS of the error / RMS)", ["layer", *columns], table)


def print_perplexities(
    model: Path, packed: Path, before: Tensors, after: Tensors, arguments: argparse.Namespace
) -> Mapping[str, Score]:
    """Perplexity of the original, of the packed weights by activation bits, and of 4 bits."""
    build = Build(preset="full")
    models: dict[str, Llama] = {}
    for name in STANDARD:
        variant = Variant.parse(name)
        source = (packed, after) if variant.weight_bits == 6 else (model, before)
        models[name] = build.model(*source, variant)
    with progress("perplexity") as tell:
        scores = score(models, "float", load_text(arguments.text, model, arguments.tokens), tell)
    tokens = scores["float"].tokens
    title = f"Perplexity on {arguments.text.name}, which was not trained on ({tokens:,} tokens)"
    print_table(title, evaluate.HEADERS, evaluate.rows(scores))
    return scores


def print_text(packed: Path, after: Tensors) -> None:
    """A few lines that the packed weights write."""
    model = Build().model(packed, after, Variant.parse("w6a16"))
    tokenizer = load_tokenizer(packed)
    print("\nWritten by the packed weights:")
    for prompt in PROMPTS:
        start = time.perf_counter()
        ids = [model.config.bos, *tokenizer.encode(prompt)]
        new = list(model.generate(ids, 60, temperature=0.7, seed=7))
        rate = len(new) / (time.perf_counter() - start)
        print(f"\n  {prompt}{tokenizer.decode(new)}  [{rate:.0f} tokens/s]")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("model", type=Path, nargs="?", default=MODEL, help="default: %(default)s")
    parser.add_argument("--text", type=Path, default=TEXT, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=8000, help="tokens to score (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="default: %(default)s")
