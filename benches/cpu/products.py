"""Products on the CPU beside ggml's Q6_K and torch's bfloat16, interleaved in one run.

    python benches/cpu/products.py --threads 2 --ggml DIRECTORY --record benches/record/CPU/DATE.csv

Every round runs every engine at every number of rows, each time with the next copy of its
weight, so that no cache holds it and a change of the machine's speed hits all alike. Results
are checked against the product in single precision before anything is timed. `--ggml` names a
directory with ggml's shared libraries, see `ggml.py`; without it Q6_K is left out. `FLEXQ_ISA=avx2`
and a ggml built without more compare what processors without AVX-512 get.
"""

import argparse
import csv
import datetime
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import flexq
import ggml
import numpy as np
import torch
from numpy.typing import NDArray

SHAPES = [(4096, 4096), (14336, 4096), (4096, 14336)]
ROWS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
# bytes of weights between two uses of the same copy
COLD = 1 << 30
# seconds between products
PAUSE = 0.02
# relative error of a product: 6-bit weights give 3 %, 8-bit activations less than 1 %
TOLERANCE = 0.05

Times = dict[tuple[str, int], list[float]]


class Engine:
    """One way to multiply with copies of a weight.

    Args:
        name: in the record.
        nbytes: of one copy.
        prepare: makes of activations `[M, K]` what multiplies with copy `i`, and what gives the
            result of it.
    """

    def __init__(
        self,
        name: str,
        nbytes: int,
        prepare: Callable[
            [NDArray[np.float32]],
            tuple[Callable[[int], object], Callable[[int], NDArray[np.float32]]],
        ],
    ) -> None:
        self.name, self.nbytes, self.prepare = name, nbytes, prepare


def engines(
    w: NDArray[np.float32], library: ggml.Ggml | None, threads: int, wanted: list[str]
) -> list[Engine]:
    """The wanted engines, each with its own copies of `w`."""
    copies = max(3, COLD // (w.size * 4))
    q = flexq.quantize(w)

    def flexq_engine(bits: int) -> Engine:
        ours = [
            flexq.QTensor.from_parts(q.packed.copy(), q.scales.copy(), q.shape)
            for _ in range(copies)
        ]

        def prepare(x: NDArray[np.float32]):
            half = x.astype(np.float16)
            out = np.empty((len(x), len(w)), np.float16)

            def run(copy: int) -> object:
                return flexq.matmul(
                    half, ours[copy % copies], act_bits=bits, out=out, threads=threads
                )

            return run, lambda _: out.astype(np.float32)

        return Engine(f"flexq A{bits}", q.nbytes, prepare)

    def torch_engine() -> Engine:
        theirs = [torch.from_numpy(w).to(torch.bfloat16) for _ in range(copies)]

        def prepare(x: NDArray[np.float32]):
            half = torch.from_numpy(x).to(torch.bfloat16)
            out = [torch.empty(0)]

            def run(copy: int) -> None:
                out[0] = torch.nn.functional.linear(half, theirs[copy % copies])

            return run, lambda _: out[0].float().numpy()

        return Engine("torch bf16", w.size * 2, prepare)

    def ggml_engine(library: ggml.Ggml) -> Engine:
        weights = ggml.Weights(library, w, copies)

        def prepare(x: NDArray[np.float32]):
            product = ggml.Product(weights, x, threads)
            return product.run, product.result

        return Engine("ggml Q6_K", weights.nbytes, prepare)

    makers: dict[str, Callable[[], Engine]] = {
        "flexq A8": lambda: flexq_engine(8),
        "flexq A16": lambda: flexq_engine(16),
        "torch bf16": torch_engine,
    }
    if library is not None:
        makers["ggml Q6_K"] = lambda: ggml_engine(library)
    return [make() for name, make in makers.items() if not wanted or name in wanted]


def measure(
    n: int, k: int, library: ggml.Ggml | None, memory: torch.Tensor, options: argparse.Namespace
) -> list[dict[str, object]]:
    """Rows of the record for one shape."""
    rng = np.random.default_rng(n + k)
    w = rng.standard_normal((n, k), np.float32) * np.float32(0.02)
    candidates = engines(w, library, options.threads, options.engines)
    runs = []
    for m in options.rows:
        x = rng.standard_normal((m, k), np.float32)
        exact = x @ w.T
        for engine in candidates:
            run, result = engine.prepare(x)
            run(0)
            error = float(np.linalg.norm(result(0) - exact) / np.linalg.norm(exact))
            if not error < TOLERANCE:
                raise SystemExit(f"{engine.name}, {n}x{k}, M={m}: relative error {error}")
            runs.append((engine, m, run, error))
    times: dict[tuple[str, int], list[float]] = {(e.name, m): [] for e, m, _, _ in runs}
    reads = []
    turns = itertools.count(len(candidates))
    for index in range(1, options.rounds + 1):
        piece = memory.chunk(8)[index % 8]
        start = time.perf_counter()
        piece.sum()
        reads.append(piece.nbytes / (time.perf_counter() - start) / 1e9)
        for engine, m, run, _ in runs:
            # the threads of OpenMP spin for a while after a product and would take turns with ours
            time.sleep(PAUSE)
            first = next(turns) // len(candidates) * options.calls
            start = time.perf_counter()
            for copy in range(first, first + options.calls):
                run(copy)
            times[engine.name, m].append((time.perf_counter() - start) / options.calls)
    read = statistics.median(reads)
    rows = []
    for engine, m, _, error in runs:
        median = statistics.median(times[engine.name, m])
        row = {
            "n": n,
            "k": k,
            "m": m,
            "engine": engine.name,
            "median_us": round(median * 1e6, 1),
            "least_us": round(min(times[engine.name, m]) * 1e6, 1),
            "weight_gb_s": round(engine.nbytes / median / 1e9, 2),
            "gop_s": round(2 * m * n * k / median / 1e9, 1),
            "read_gb_s": round(read, 2),
            "relative_error": round(error, 5),
        }
        print(*row.values(), sep="\t", flush=True)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--calls",
        type=int,
        default=1,
        help="products in a row, as a model does them, after a pause",
    )
    parser.add_argument("--ggml", type=Path, help="directory of libggml-base.so and libggml-cpu.so")
    parser.add_argument("--record", type=Path, help="CSV file to write or add to")
    parser.add_argument("--rows", type=lambda text: list(map(int, text.split(","))), default=ROWS)
    parser.add_argument(
        "--engines",
        type=lambda text: text.split(","),
        default=[],
        help='those to run, as "flexq A8,ggml Q6_K"; all without it',
    )
    parser.add_argument("--shapes", default=",".join(f"{n}x{k}" for n, k in SHAPES))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    library = ggml.Ggml(options.ggml) if options.ggml else None
    memory = torch.ones(COLD // 8, dtype=torch.int64)
    rows = []
    for shape in options.shapes.split(","):
        n, k = map(int, shape.split("x"))
        rows += measure(n, k, library, memory, options)
    if options.record:
        options.record.parent.mkdir(parents=True, exist_ok=True)
        with options.record.open("a", newline="") as file:
            writer = csv.DictWriter(file, ["date", "threads", *rows[0]])
            if file.tell() == 0:
                writer.writeheader()
            date = datetime.datetime.now(datetime.UTC).date().isoformat()
            for row in rows:
                writer.writerow({"date": date, "threads": options.threads, **row})


if __name__ == "__main__":
    main()
