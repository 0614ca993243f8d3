"""A random weight as every contender wants it, each cold: copies that fill the cache take turns."""

from __future__ import annotations

from functools import cached_property

import torch
from flexq import _flexq

COLD = 220_000_000


def stream() -> int:
    """The current stream, as the driver knows it."""
    return torch.cuda.current_stream().cuda_stream


def copies(size: int) -> int:
    """How many copies of a weight of `size` bytes push each other out of the cache."""
    return max(2, -(-COLD // size))


class Weight:
    """Packed copies in device order; dense forms are made when first asked for."""

    def __init__(self, n: int, k: int) -> None:
        self.n, self.k = n, k
        packed = torch.randint(0, 256, (n, k * 6 // 8), dtype=torch.uint8, device="cuda")
        scales = (torch.rand(n, k // 128, device="cuda") * 0.02 - 0.01).half()
        code_bytes, scale_count = _flexq.cuda_sizes(n, k, 128)
        self.bytes = code_bytes + 2 * scale_count
        count = copies(self.bytes)
        self.codes = torch.empty((count, code_bytes), dtype=torch.uint8, device="cuda")
        self.scales = torch.empty((count, scale_count), dtype=torch.float16, device="cuda")
        for i in range(count):
            _flexq.cuda_repack(0, stream(), (packed.data_ptr(), scales.data_ptr()), self.raw(i))
        self.others: dict[str, list[torch.nn.Module]] = {}  # layers of other packages

    def raw(self, i: int) -> tuple[int, int, int, int, int, int]:
        """Copy number `i` as the native module takes it."""
        i %= len(self.codes)
        return (self.codes[i].data_ptr(), self.scales[i].data_ptr(), 0, self.n, self.k, 128)

    @cached_property
    def half(self) -> torch.Tensor:
        """`[copies, N, K]` in half precision: the weight itself."""
        dense = torch.empty((self.n, self.k), dtype=torch.float16, device="cuda")
        _flexq.cuda_dequantize(0, stream(), self.raw(0), (dense.data_ptr(), 0))
        return dense.repeat(copies(2 * self.n * self.k), 1, 1)

    @cached_property
    def int8(self) -> torch.Tensor:
        """`[copies, N, K]` of random int8 codes."""
        shape = (copies(self.n * self.k), self.n, self.k)
        return torch.randint(-128, 128, shape, dtype=torch.int8, device="cuda")

    @cached_property
    def fp8(self) -> torch.Tensor:
        """`[copies, N, K]` in 8-bit floating point."""
        dense = (self.half[0].float() * 1000).to(torch.float8_e4m3fn)
        return dense.repeat(copies(self.n * self.k), 1, 1)
