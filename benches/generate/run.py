"""Prefill and decode of models with random weights, bf16 against flexq and others.

    python benches/generate/run.py --shapes llama-3.1-8b --batch 1 8 32 --modes compiled --out r.csv

Decode on a GPU is one step with a static cache of 128 + 1024 tokens, recorded as a CUDA graph
and replayed; on a CPU it is a step with the cache that transformers takes by itself, after a
prompt of 128. Prefill runs without a cache. `--modes` are those of `steps.py`. Weights are random:
speed and memory do not depend on their values; on a GPU `difference` is that of the timed logits
from those of a plain call. A case whose step cannot be recorded is timed without a graph, and one
that fails says why. `--outputs` generates so many tokens greedily; `again` says whether the first
of them came again, `same` which share of them the mode before gave. `--generate` calls the model's
own `generate` instead. `--profile` prints where time goes. Compiling takes long: several processes,
each with a shape, a system and the same `--turns` directory, do it together and are timed in turn.
"""

import argparse
import csv
import gc
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from models import PRESETS, SHAPES, SYSTEMS, build
from profiles import profile
from steps import MODES, Decode, Generate, Prefill, compiler, first_line
from turns import take_part, turn

WARM_S = 0.3


def synchronize(device: str) -> None:
    """Waits for the GPU, where there is one."""
    if device == "cuda":
        torch.cuda.synchronize()


def median(call, device: str, repeats: int, warm_s: float = WARM_S) -> float:
    """Seconds of a call, the median of several; a GPU at rest works a while first."""
    times = []
    end = time.perf_counter() + warm_s * (device == "cuda")
    while time.perf_counter() < end:
        call()
        synchronize(device)
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@dataclass
class Case:
    """Something to time, or why it cannot be.

    Attributes:
        row: what is known of it, as columns of the result.
        work: what to time.
        repeats: how often to time it.
    """

    row: dict
    work: Decode | Prefill | Generate | None = None
    repeats: int = 0

    def time(self, device: str) -> dict:
        """The row with seconds and tokens per second."""
        if self.work is None:
            return self.row
        kinds = {"prompt": "prefill", "generate": "generate"}
        kind = next((kind for key, kind in kinds.items() if key in self.row), "decode")
        self.work.rewind()
        seconds = median(self.work.call, device, self.repeats)
        tokens = self.row.get("prompt") or self.row.get("generate") or self.row["batch"]
        return self.row | {f"{kind}_s": seconds, f"{kind}_tok_s": round(tokens / seconds, 1)}


def ready(row: dict, repeats: int, kind: type, *arguments: object) -> Case:
    """The case of a kind of work; one that fails says why."""
    start = time.perf_counter()
    try:
        work = kind(*arguments)
    except Exception as error:
        return Case(row | {"error": first_line(error)})
    setup = {"setup_s": round(time.perf_counter() - start, 1)}
    return Case(row | work.known | setup, work, repeats)


def ready_all(model, row: dict, options: argparse.Namespace) -> list[Case]:
    """Every case of a model, in every mode."""
    cases, caches = [], {}
    for mode in options.modes:
        with compiler(mode):
            common = row | {"mode": mode}
            for batch in options.batch:
                batched = common | {"batch": batch}
                task = model, batch, options.device, mode, caches.get(batch)
                cases.append(ready(batched, options.repeats, Decode, *task))
                if options.device == "cuda" and cases[-1].work is not None:
                    caches[batch] = cases[-1].work.cache
            if options.prompt:
                prompted = common | {"batch": 1, "prompt": options.prompt}
                few = max(options.repeats // 4, 3)
                task = model, options.prompt, options.device, mode
                cases.append(ready(prompted, few, Prefill, *task))
            for count in options.generate:
                counted = common | {"batch": 1, "generate": count}
                cases.append(ready(counted, 3, Generate, model, count, options.device, mode))
    return cases


def time_all(cases: list[Case], options: argparse.Namespace) -> list[dict]:
    """Times cases one after the other; their rows."""
    rows, chosen = [], {}
    for case in cases:
        row = case.time(options.device)
        if options.profile and options.device == "cuda" and isinstance(case.work, Decode | Prefill):
            name = "{shape}-{system}-{mode}-{batch}" + "-prompt" * ("prompt" in row) + ".csv"
            path = options.kernels and options.kernels / name.format(**row)
            profile(case.work.call, path=path)
        if options.outputs and row.get("graph") == "yes":
            # not the whole of it: the first tokens tell
            before, _ = case.work.generate(options.outputs[:1])
            tokens, seconds = case.work.generate(options.outputs)
            row |= {f"outputs_{count}_s": value for count, value in seconds.items()}
            row["again"] = torch.equal(before, tokens[:, : before.shape[1]])
            if row["batch"] in chosen:
                same = (tokens == chosen[row["batch"]]).float().mean()
                row["same"] = round(float(same), 4)
            chosen[row["batch"]] = tokens
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    """Measures every combination asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=["llama-3.1-8b"], choices=SHAPES)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS[:5]), choices=SYSTEMS)
    parser.add_argument("--batch", nargs="*", type=int, default=[1, 8, 32])
    parser.add_argument("--prompt", type=int, default=2048, help="tokens of the prefill; 0: none")
    parser.add_argument("--layers", type=int, help="fewer than the model has, to look closely")
    parser.add_argument("--attention", default="sdpa", help="of transformers, the same for all")
    parser.add_argument(
        "--no-cudnn", action="store_true", help="keep cuDNN's attention out, whose last bits vary"
    )
    parser.add_argument("--preset", default="full", choices=PRESETS, help="what flexq packs")
    parser.add_argument("--modes", nargs="+", default=["plain"], choices=MODES)
    parser.add_argument("--outputs", nargs="*", type=int, default=[], help="tokens to generate")
    parser.add_argument(
        "--generate", nargs="*", type=int, default=[], help="the same by `generate`"
    )
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--kernels", type=Path, help="directory for the kernels of each step")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--turns", type=Path, help="directory shared with other processes")
    parser.add_argument("--processes", type=int, default=1, help="how many share it")
    options = parser.parse_args()
    device = options.device
    take_part(options.turns)
    torch.backends.cuda.enable_cudnn_sdp(not options.no_cudnn)
    rows = []
    for shape in options.shapes:
        for system in options.systems:
            gc.collect()
            if device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            kind = options.layers, options.attention, options.preset
            model = build(shape, system, device, *kind)
            row = {"shape": shape, "system": system, "preset": options.preset}
            cases = ready_all(model, row, options)
            with turn(options.turns, options.processes):
                rows += time_all(cases, options)
            if device == "cuda":
                rows[-1]["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
                print("peak GiB", rows[-1]["peak_gib"], flush=True)
            del model, cases
    if options.out:
        with options.out.open("w", newline="") as file:
            fields = list(dict.fromkeys(key for row in rows for key in row))
            writer = csv.DictWriter(file, fieldnames=fields)
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
