"""What is timed: each contender turns (weight, x) into a launch of product number `i`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from flexq import _flexq
from weights import Weight, copies, stream

Launch = Callable[[int], object]
# name of a precision: bits of an activation, one scale per row
PRECISIONS = {"A16": (16, False), "A8": (8, False), "A8row": (8, True)}
FAMILIES = ("small", "streamed", "teams", "planes", "tile", "hopper")


class Ours:
    """Our product at one precision, with the kernel of the dispatch or another."""

    def __init__(self, weight: Weight, x: torch.Tensor, precision: str, kernel: str = "auto"):
        self.weight, self.x, self.precision = weight, x, precision
        self.act_bits, self.row = PRECISIONS[precision]
        self.kernel = kernel
        self.raw_x = (x.data_ptr(), 0, len(x), x.stride(0))
        # raises ValueError where the kernel cannot compute this product
        self.config, size = _flexq.cuda_choice(
            0, weight.raw(0), self.raw_x, self.act_bits, self.row, kernel
        )
        self.space = torch.zeros(size, dtype=torch.uint8, device="cuda")
        self.y = torch.empty((len(x), weight.n), dtype=torch.float16, device="cuda")

    def product(self, i: int, y: torch.Tensor) -> None:
        """`y = x @ w.T` with copy number `i`."""
        _flexq.cuda_linear(
            0, stream(), self.weight.raw(i), self.raw_x, None,
            (y.data_ptr(), 0 if y.dtype == torch.float16 else 2), self.act_bits, self.row,
            (self.space.data_ptr(), self.space.numel()), self.kernel,
        )  # fmt: skip

    def __call__(self, i: int) -> None:
        """Launch number `i`."""
        self.product(i, self.y)

    def check(self) -> None:
        """Compares 64 rows, first to last, with float64; stops the program on a wrong result."""
        x, weight = self.x, self.weight
        y = torch.full((len(x), weight.n), torch.nan, device="cuda")
        self.product(0, y)
        rows = torch.linspace(0, len(x) - 1, min(len(x), 64), device="cuda").round().long()
        exact = x[rows].double() @ weight.half[0].double().T
        error = float((y[rows].double() - exact).norm() / exact.norm())
        # the dense weights are rounded to half precision; A8 adds its own step
        bound = 1e-3 if self.act_bits == 16 else 0.03
        if not error < bound or bool(y.isnan().any()):
            what = f"{weight.n}x{weight.k} M={len(x)} {self.precision} {self.config}"
            raise SystemExit(f"wrong result: {what}: {error}")


def cublas_half(weight: Weight, x: torch.Tensor) -> Launch:
    """Half precision."""
    dense = weight.half
    y = torch.empty((len(x), weight.n), dtype=torch.float16, device="cuda")
    return lambda i: torch.mm(x, dense[i % len(dense)].T, out=y)


def cublas_int8(weight: Weight, x: torch.Tensor) -> Launch | None:
    """Integers, quantization and scales left out; it refuses 16 rows and fewer."""
    if len(x) <= 16:
        return None
    dense = weight.int8
    codes = torch.randint(-127, 128, x.shape, dtype=torch.int8, device="cuda")
    y = torch.empty((len(x), weight.n), dtype=torch.int32, device="cuda")
    return lambda i: torch._int_mm(codes, dense[i % len(dense)].T, out=y)


def cublas_fp8(weight: Weight, x: torch.Tensor) -> Launch:
    """8-bit floating point with one scale per tensor, quantization left out."""
    dense = weight.fp8
    codes = x.to(torch.float8_e4m3fn)
    one = torch.ones((), device="cuda")
    return lambda i: torch._scaled_mm(
        codes, dense[i % len(dense)].T, one, one, out_dtype=torch.float16
    )


def humming(weight: Weight, x: torch.Tensor, input_config: dict[str, object] | None) -> Launch:
    """The Humming kernels with their own tuned configurations, compiled here at first use."""
    from humming.layer import HummingLayer

    layers = weight.others.get(str(input_config))
    if layers is None:
        layers = []
        for _ in range(copies(weight.bytes)):
            layer = HummingLayer(
                shape_n=weight.n,
                shape_k=weight.k,
                weight_config={"dtype": "int6", "group_size": 128},
                input_config=input_config,
                torch_dtype=torch.float16,
            ).cuda()
            layer.load_from_unquantized(weight.half[0])
            layer.transform()
            layers.append(layer)
        weight.others[str(input_config)] = layers
    exact = x.double() @ weight.half[0].double().T
    error = float((layers[0](x).double() - exact).norm() / exact.norm())
    if not error < 0.1:
        raise SystemExit(f"Humming: wrong result: {error}")
    return lambda i: layers[i % len(layers)](x)


def humming_a16(weight: Weight, x: torch.Tensor) -> Launch:
    """Humming, 16-bit activations."""
    return humming(weight, x, None)


def humming_a8(weight: Weight, x: torch.Tensor) -> Launch:
    """Humming, int8 activations with a scale per row, quantization included."""
    return humming(weight, x, {"dtype": "int8"})


RIVALS = {
    "humming_a16": humming_a16,
    "humming_a8": humming_a8,
    "cublas_int8": cublas_int8,
    "cublas_fp8": cublas_fp8,
}
