"""Time products on packed weights on one GPU, beside cuBLAS and others, in one run.

    python benches/gpu/bench.py [--out FILE.csv] [--seconds N] [--shapes NxK,..] [--rows M,..]
                                [--families] [--kernels "A16 small splits=2; ..."] [--humming]

Every result is compared with float64 before it is timed. Weights are cold: copies of more
than 200 MB take turns. A time is the median over replays of a CUDA graph of many launches, so
host time does not count. The ceilings of the card are measured first: reading cold memory and
a large half-precision product. `--families` adds every kernel family that can compute a
product beside the one that the dispatch chooses; `--kernels` adds kernels by hand.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from contenders import FAMILIES, PRECISIONS, RIVALS, Ours, cublas_half
from weights import Weight

SHAPES = [
    (4096, 4096), (12288, 4096), (11008, 4096), (4096, 11008), (14336, 4096), (4096, 14336),
    (5120, 5120), (13824, 5120), (8192, 8192), (28672, 8192), (8192, 28672), (24576, 8192),
]  # fmt: skip
ROWS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192]


def graph_time(
    launch: Callable[[int], object], count: int, replays: int = 5, rest: float = 0.0
) -> float:
    """Microseconds of one launch: the median over replays of a graph of `count` of them.

    `rest` is how many seconds the card is left alone before: long products are limited by power,
    and whoever comes after others would start with a slower clock.
    """
    torch.cuda.synchronize()
    time.sleep(rest)
    for i in range(2):
        launch(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(count):
            launch(i)
    graph.replay()
    times = []
    for _ in range(replays):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(200_000)  # cycles: until the replay is queued
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1000 / count)
    return sorted(times)[len(times) // 2]


def read_bandwidth() -> float:
    """TB/s of reading cold memory: the largest of a quarter of a billion integers."""
    data = torch.randint(0, 100, (1 << 28,), dtype=torch.int32, device="cuda")
    parts = data.view(4, -1)
    micro = graph_time(lambda i: parts[i % 4].max(), 8)
    return parts[0].numel() * 4 / micro / 1e6


def product_peak() -> float:
    """TFLOP/s of a large half-precision product."""
    square = torch.randn(8192, 8192, device="cuda").half()
    return 2 * 8192**3 / graph_time(lambda _: square @ square.T, 4) / 1e6


@dataclass
class Bench:
    """One run: what to time, and every figure so far."""

    options: argparse.Namespace
    gpu: str
    bandwidth: float
    figures: list[dict[str, object]] = field(default_factory=list)

    def contenders(self, weight: Weight, x: torch.Tensor) -> Iterator[tuple[str, Ours]]:
        """Our kernels for a product: the chosen ones, then those asked for."""
        for name in PRECISIONS:
            if name in self.options.precisions:
                yield name, Ours(weight, x, name)
        asked = [k.strip() for k in self.options.kernels.split(";") if k.strip()]
        if self.options.families:
            asked += [f"{p} {f}" for p in self.options.precisions for f in FAMILIES]
        for text in asked:
            precision, kernel = text.split(" ", 1)
            try:
                yield text, Ours(weight, x, precision, kernel)
            except ValueError:
                continue  # it cannot compute this product

    def product(self, weight: Weight, m: int) -> None:
        """Times everybody at one point and prints a line."""
        x = torch.randn(m, weight.k, device="cuda").half()
        floor = weight.bytes / self.bandwidth / 1e6
        count = max(len(weight.codes), 40 if m <= 64 else 12) if m <= 512 else 4
        rest = 0.1 if m >= 256 else 0.0
        cublas = graph_time(cublas_half(weight, x), count, rest=rest)
        line = f"M {m:5} cuBLAS {cublas:8.2f}"

        def note(name: str, micro: float, config: str) -> None:
            self.figures.append({
                "gpu": self.gpu, "n": weight.n, "k": weight.k, "m": m, "contender": name,
                "us": round(micro, 2), "cublas_us": round(cublas, 2),
                "ratio": round(cublas / micro, 3), "floor_fraction": round(floor / micro, 3),
                "tflops": round(2 * m * weight.n * weight.k / micro / 1e6, 1), "config": config,
            })  # fmt: skip

        for name, ours in self.contenders(weight, x):
            ours.check()
            micro = graph_time(ours, count, rest=rest)
            note(name, micro, ours.config)
            line += f" | {name} {micro:.2f} x{cublas / micro:.2f}"
            line += f" {floor / micro:.0%}" if m <= 16 else ""
        for name in self.options.rivals:
            launch = RIVALS[name](weight, x)
            if launch is not None:
                micro = graph_time(launch, count, rest=rest)
                note(name, micro, "")
                line += f" | {name} {micro:.2f}"
        print(line, flush=True)

    def summary(self) -> None:
        """Geometric means over shapes, by precision and M."""
        for name in self.options.precisions:
            for low, high in ((1, 8), (16, 16), (32, 128), (256, 512), (1024, 8192)):
                ratios = [
                    float(str(f["ratio"]))
                    for f in self.figures
                    if f["contender"] == name and low <= int(str(f["m"])) <= high
                ]
                if ratios:
                    mean = torch.tensor(ratios).log().mean().exp()
                    print(
                        f"{name} M {low}-{high}: {mean:.2f} times cuBLAS, least {min(ratios):.2f}"
                    )

    def write(self, path: Path) -> None:
        """Every figure as CSV."""
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.figures[0].keys())
            writer.writeheader()
            writer.writerows(self.figures)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write every figure to this CSV file")
    parser.add_argument("--seconds", type=float, default=600, help="stop starting shapes then")
    parser.add_argument("--shapes", help="such as 4096x4096,8192x8192; twelve by default")
    parser.add_argument("--rows", help="such as 1,16,256; fourteen by default")
    parser.add_argument("--precisions", default=",".join(PRECISIONS), help="A16,A8,A8row")
    parser.add_argument("--families", action="store_true", help="time every kernel family")
    parser.add_argument("--kernels", default="", help='such as "A16 small splits=2; A8 tile"')
    parser.add_argument("--rivals", default="", help=",".join(RIVALS))
    options = parser.parse_args()
    options.precisions = options.precisions.split(",")
    options.rivals = [name for name in options.rivals.split(",") if name]
    return options


def main() -> int:
    """Run everything."""
    options = arguments()
    shapes, rows = SHAPES, ROWS
    if options.shapes:
        shapes = [tuple(map(int, s.split("x"))) for s in options.shapes.split(",")]
    if options.rows:
        rows = [int(m) for m in options.rows.split(",")]
    began = time.monotonic()
    bench = Bench(options, torch.cuda.get_device_name(), read_bandwidth())
    peak = product_peak()
    print(
        f"{bench.gpu}: reads {bench.bandwidth:.2f} TB/s, half-precision product {peak:.0f} TFLOP/s"
    )
    for n, k in shapes:
        if time.monotonic() - began > options.seconds:
            break
        weight = Weight(n, k)
        floor = weight.bytes / bench.bandwidth / 1e6
        print(f"\n{n} x {k}: {weight.bytes / 1e6:.1f} MB, floor {floor:.2f} us")
        for m in rows:
            bench.product(weight, m)
        del weight
        if options.out:  # a run that is cut short leaves what it has
            bench.write(options.out)
    bench.summary()
    return 0


if __name__ == "__main__":
    sys.exit(main())
