"""Time products on packed weights on one GPU, beside cuBLAS, in one run.

    python benches/gpu/bench.py [--out FILE.csv] [--seconds N]

Every result is compared with float64 before it is timed. Weights are cold: copies of more
than 200 MB take turns. A time is the median over replays of a CUDA graph of many launches, so
host time does not count. The ceilings of the card are measured first: reading cold memory and
a large half-precision product.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable

import torch
from flexq import _flexq

SHAPES = [
    (4096, 4096), (12288, 4096), (11008, 4096), (4096, 11008), (14336, 4096), (4096, 14336),
    (5120, 5120), (13824, 5120), (8192, 8192), (28672, 8192), (8192, 28672), (24576, 8192),
]  # fmt: skip
ROWS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192]
COLD = 220_000_000


def stream() -> int:
    """The current stream, as the driver knows it."""
    return torch.cuda.current_stream().cuda_stream


def graph_time(launches: list[Callable[[], object]], replays: int = 5) -> float:
    """Microseconds of one launch: the median over replays of a graph of all of them."""
    for launch in launches[:2]:
        launch()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for launch in launches:
            launch()
    graph.replay()
    times = []
    for _ in range(replays):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1000 / len(launches))
    return sorted(times)[len(times) // 2]


class Weight:
    """A random weight: copies in device order, and the dense one for cuBLAS."""

    def __init__(self, n: int, k: int) -> None:
        self.n, self.k = n, k
        packed = torch.randint(0, 256, (n, k * 6 // 8), dtype=torch.uint8, device="cuda")
        scales = (torch.rand(n, k // 128, device="cuda") * 0.02 - 0.01).half()
        code_bytes, scale_count = _flexq.cuda_sizes(n, k, 128)
        self.bytes = code_bytes + 2 * scale_count
        count = max(2, -(-COLD // self.bytes))
        self.codes = torch.empty((count, code_bytes), dtype=torch.uint8, device="cuda")
        self.scales = torch.empty((count, scale_count), dtype=torch.float16, device="cuda")
        for i in range(count):
            _flexq.cuda_repack(0, stream(), (packed.data_ptr(), scales.data_ptr()), self.raw(i))
        dense = torch.empty((n, k), dtype=torch.float16, device="cuda")
        _flexq.cuda_dequantize(0, stream(), self.raw(0), (dense.data_ptr(), 0))
        self.dense = dense.repeat(max(2, -(-COLD // (2 * n * k))), 1, 1)
        self.workspaces: dict[tuple[int, int], torch.Tensor] = {}

    def raw(self, i: int) -> tuple[int, int, int, int, int, int]:
        """Copy number `i` as the native module takes it."""
        i %= len(self.codes)
        return (self.codes[i].data_ptr(), self.scales[i].data_ptr(), 0, self.n, self.k, 128)

    def linear(self, i: int, x: torch.Tensor, y: torch.Tensor, act_bits: int, row: bool) -> None:
        """One product with copy number `i`."""
        key = (len(x), act_bits)
        if key not in self.workspaces:
            size, _ = _flexq.cuda_workspace(0, self.raw(0), len(x), 0, act_bits, row)
            self.workspaces[key] = torch.zeros(size, dtype=torch.uint8, device="cuda")
        space = self.workspaces[key]
        _flexq.cuda_linear(
            0, stream(), self.raw(i), (x.data_ptr(), 0, len(x), x.stride(0)), None,
            (y.data_ptr(), 0 if y.dtype == torch.float16 else 2), act_bits, row,
            (space.data_ptr(), space.numel()),
        )  # fmt: skip


def read_bandwidth() -> float:
    """TB/s of reading cold memory: the sum of a gigabyte of integers."""
    data = torch.randint(0, 100, (1 << 28,), dtype=torch.int32, device="cuda")
    parts = data.view(4, -1)
    micro = graph_time([lambda i=i: parts[i % 4].max() for i in range(8)])
    return parts[0].numel() * 4 / micro / 1e6


def product_peak() -> float:
    """TFLOP/s of a large half-precision product."""
    square = torch.randn(8192, 8192, device="cuda").half()
    return 2 * 8192**3 / graph_time([lambda: square @ square.T] * 4) / 1e6


def check(weight: Weight, x: torch.Tensor, act_bits: int, row: bool) -> None:
    """Compares with float64; stops the program on a wrong result."""
    y = torch.full((len(x), weight.n), torch.nan, device="cuda")
    weight.linear(0, x, y, act_bits, row)
    exact = x[:64].double() @ weight.dense[0].double().T
    error = float((y[:64].double() - exact).norm() / exact.norm())
    # the dense weights are rounded to half precision; A8 adds its own step
    bound = 1e-3 if act_bits == 16 else 0.03
    if not error < bound or bool(y.isnan().any()):
        raise SystemExit(f"wrong result: {weight.n}x{weight.k} M={len(x)} A{act_bits}: {error}")


def time_cublas(weight: Weight, x: torch.Tensor, y: torch.Tensor, count: int) -> float:
    """Microseconds of the half-precision product."""
    dense = weight.dense

    def launch(i: int) -> Callable[[], object]:
        return lambda: torch.mm(x, dense[i % len(dense)].T, out=y)

    return graph_time([launch(i) for i in range(count)])


def time_ours(
    weight: Weight, x: torch.Tensor, y: torch.Tensor, act_bits: int, row: bool, count: int
) -> float:
    """Microseconds of our product, activation quantization included."""

    def launch(i: int) -> Callable[[], object]:
        return lambda: weight.linear(i, x, y, act_bits, row)

    return graph_time([launch(i) for i in range(count)])


def main() -> int:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="write every figure to this CSV file")
    parser.add_argument("--seconds", type=float, default=600, help="stop starting shapes then")
    options = parser.parse_args()
    began = time.monotonic()
    gpu = torch.cuda.get_device_name()
    bandwidth = read_bandwidth()
    peak = product_peak()
    print(f"{gpu}: reads {bandwidth:.2f} TB/s, half-precision product {peak:.0f} TFLOP/s")
    rows: list[dict[str, object]] = []
    for n, k in SHAPES:
        if time.monotonic() - began > options.seconds:
            break
        weight = Weight(n, k)
        floor = weight.bytes / bandwidth / 1e6
        print(f"\n{n} x {k}: {weight.bytes / 1e6:.1f} MB, floor {floor:.2f} us")
        for m in ROWS:
            x = torch.randn(m, k, device="cuda").half()
            y = torch.empty((m, n), dtype=torch.float16, device="cuda")
            count = max(len(weight.codes), 6) if m <= 512 else 3
            cublas = time_cublas(weight, x, y, count)
            line = f"M {m:5} cuBLAS {cublas:9.2f}"
            for name, act_bits, row in (("A16", 16, False), ("A8", 8, False), ("A8row", 8, True)):
                check(weight, x, act_bits, row)
                micro = time_ours(weight, x, y, act_bits, row, count)
                config = _flexq.cuda_choice(0, weight.raw(0), (0, 0, m, k), act_bits, row)
                rows.append({
                    "gpu": gpu, "n": n, "k": k, "m": m, "precision": name, "us": round(micro, 2),
                    "cublas_us": round(cublas, 2), "ratio": round(cublas / micro, 3),
                    "floor_fraction": round(floor / micro, 3),
                    "tflops": round(2 * m * n * k / micro / 1e6, 1), "config": config,
                })  # fmt: skip
                line += f" | {name} {micro:9.2f} x{cublas / micro:.2f}"
                line += f" {floor / micro:.0%}" if m <= 16 else ""
            print(line, flush=True)
        del weight
    if options.out:
        with open(options.out, "w", newline="") as file:  # noqa: PTH123
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    for name in ("A16", "A8", "A8row"):
        for low, high in ((1, 16), (32, 128), (256, 512), (1024, 8192)):
            ratios = [
                float(str(r["ratio"]))
                for r in rows
                if r["precision"] == name and low <= int(str(r["m"])) <= high
            ]
            mean = torch.tensor(ratios).log().mean().exp()
            print(f"{name} M {low}-{high}: {mean:.2f} times cuBLAS, least {min(ratios):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
