"""Prefill and decode of models with random weights, bf16 against flexq and others.

    python benches/generate/run.py --shapes llama-3.1-8b --batch 1 8 32 --compile --out r.csv

Decode on a GPU is one step with a static cache of 128 + 1024 tokens, recorded as a CUDA graph
and replayed; on a CPU it is a step with the cache that transformers takes by itself, after a
prompt of 128. Prefill runs without a cache. `--compile` compiles both with torch.compile, as
`generate` does with a static cache. Weights are random: speed and memory do not depend on
their values; on a GPU `difference` is that of the timed logits from those of a plain call. A case
whose step cannot be recorded is timed without a graph, and one that fails says why.
`--profile` prints where the time of a decode step goes. Compiling takes long: several processes,
each with a shape, a system and the same `--turns` directory, do it together and are timed in turn.
"""

import argparse
import csv
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from models import SHAPES, SYSTEMS, build
from transformers import DynamicCache, StaticCache
from turns import take_part, turn

PROMPT, OUTPUT = 128, 1024
TOLERANCE = 0.5
"""Of logits: compiled models round in other places, layers of random weights amplify that, and a
token may get another expert. Wrong products differ by more than 1."""


def synchronize(device: str) -> None:
    """Waits for the GPU, where there is one."""
    if device == "cuda":
        torch.cuda.synchronize()


def median(call, device: str, repeats: int) -> float:
    """Seconds of a call, the median of several."""
    times = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def record(step):
    """A call that replays `step` as a CUDA graph, and the tensor it fills.

    Where `step` cannot be recorded, `step` itself and what it gave.
    """
    try:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # thread_local: the thread that watches over NCCL asks the driver while this one records
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            out = step()
    except RuntimeError as error:
        torch.cuda.synchronize()
        print("no graph:", first_line(error))
        return step, step()
    return graph.replay, out


def profile(call, steps: int = 5) -> None:
    """Prints the kernels of a call, by time."""
    from torch.profiler import ProfilerActivity

    with torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            call()
        torch.cuda.synchronize()
    kernels = [e for e in profiler.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    totals: dict[str, list[float]] = {}
    for kernel in kernels:
        totals.setdefault(kernel.name[:90], []).append(kernel.device_time)
    busy = sum(map(sum, totals.values())) / steps
    first, last = kernels[0].time_range.start, max(k.time_range.end for k in kernels)
    print(f"  kernels {busy:.0f} us of {(last - first) / steps:.0f} us a step")
    for name, times in sorted(totals.items(), key=lambda item: -sum(item[1]))[:25]:
        count = len(times) / steps
        print(
            f"  {sum(times) / steps:8.1f} us {count:6.1f} x {statistics.median(times):7.2f}  {name}"
        )


@dataclass
class Case:
    """Something to time, or why it cannot be.

    Attributes:
        row: what is known of it, as columns of the result.
        call: does it once.
        repeats: how often to time it.
    """

    row: dict
    call: Callable | None = None
    repeats: int = 0

    def time(self, device: str, profiled: bool) -> dict:
        """The row with seconds and tokens per second."""
        if self.call is None:
            return self.row
        kind = "prefill" if "prompt" in self.row else "decode"
        seconds = median(self.call, device, self.repeats)
        tokens = self.row.get("prompt", self.row["batch"])
        if profiled and kind == "decode":
            profile(self.call)
        return self.row | {f"{kind}_s": seconds, f"{kind}_tok_s": round(tokens / seconds, 1)}


@torch.no_grad()
def prefill(model, tokens: int, device: str, compiled: bool) -> tuple[dict, Callable]:
    """Readies the reading of a prompt; what is known of it, and the call to time."""
    prompt = torch.randint(0, 1000, (1, tokens), device=device)
    forward = torch.compile(model, fullgraph=True, dynamic=False) if compiled else model

    @torch.no_grad()
    def call() -> None:
        forward(prompt, use_cache=False, logits_to_keep=1)

    for _ in range(2):
        call()
    return {}, call


@torch.no_grad()
def decode(model, batch: int, device: str, compiled: bool) -> tuple[dict, Callable]:
    """Readies a decoding step; what is known of it, and the call to time."""
    tokens = torch.randint(0, 1000, (batch, PROMPT), device=device)
    if device == "cuda":
        cache = StaticCache(config=model.config, max_cache_len=PROMPT + OUTPUT)
    else:
        cache = DynamicCache(config=model.config)
    model(tokens, past_key_values=cache, logits_to_keep=1)
    token = tokens[:, :1].clone()
    position = torch.full((1, 1), PROMPT, device=device)
    forward = torch.compile(model, fullgraph=True, dynamic=False) if compiled else model

    @torch.no_grad()
    def step() -> torch.Tensor:
        return forward(token, past_key_values=cache, position_ids=position).logits

    expected = model(token, past_key_values=cache, position_ids=position).logits
    for _ in range(2):
        step()
    if device == "cpu":
        return {"graph": "no"}, step
    # a static cache, so every step gives the same
    call, out = record(step)
    if call is not step:
        out.fill_(torch.nan)
        call()
    error = float((out - expected).norm() / expected.norm())
    assert error < TOLERANCE, f"differs from a plain call by {error:.1e}"
    return {"graph": "no" if call is step else "yes", "difference": round(error, 4)}, call


def ready(row: dict, repeats: int, prepare: Callable, *arguments: object) -> Case:
    """The case that `prepare` readies; one that fails says why."""
    start = time.perf_counter()
    try:
        known, call = prepare(*arguments)
    except Exception as error:
        return Case(row | {"error": first_line(error)})
    known["setup_s"] = round(time.perf_counter() - start, 1)
    return Case(row | known, call, repeats)


def first_line(error: Exception) -> str:
    """Kind and message of an error, without the explanations that follow."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def main() -> None:
    """Measures every combination asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=["llama-3.1-8b"], choices=SHAPES)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS[:5]), choices=SYSTEMS)
    parser.add_argument("--batch", nargs="*", type=int, default=[1, 8, 32])
    parser.add_argument("--prompt", type=int, default=2048, help="tokens of the prefill; 0: none")
    parser.add_argument("--layers", type=int, help="fewer than the model has, to look closely")
    parser.add_argument("--attention", default="sdpa", help="of transformers, the same for all")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--turns", type=Path, help="directory shared with other processes")
    parser.add_argument("--processes", type=int, default=1, help="how many share it")
    arguments = parser.parse_args()
    device, compiled, repeats = arguments.device, arguments.compile, arguments.repeats
    take_part(arguments.turns)
    rows = []
    for shape in arguments.shapes:
        for system in arguments.systems:
            gc.collect()
            if device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            torch.compiler.reset()
            model = build(shape, system, device, arguments.layers, arguments.attention)
            common = {"shape": shape, "system": system, "compiled": compiled}
            cases = [
                ready(common | {"batch": batch}, repeats, decode, model, batch, device, compiled)
                for batch in arguments.batch
            ]
            if tokens := arguments.prompt:
                row = common | {"batch": 1, "prompt": tokens}
                few = max(repeats // 4, 3)
                cases.append(ready(row, few, prefill, model, tokens, device, compiled))
            with turn(arguments.turns, arguments.processes):
                for case in cases:
                    rows.append(case.time(device, arguments.profile))
                    print(rows[-1], flush=True)
            if device == "cuda":
                rows[-1]["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
                print("peak GiB", rows[-1]["peak_gib"], flush=True)
            del model, cases
    if arguments.out:
        with arguments.out.open("w", newline="") as file:
            fields = list(dict.fromkeys(key for row in rows for key in row))
            writer = csv.DictWriter(file, fieldnames=fields)
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
