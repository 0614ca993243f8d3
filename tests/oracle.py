"""An independent account of flexq's numerics in plain numpy.

Written from the text of `docs/format.md` and the documentation of the quantizer, not from
the code. Nothing here is fast, nothing imports flexq, and sums are taken in float64.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
FLOAT_TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
RULES = ("absmax31", "absmax32s", "mse")
GROUPS: tuple[int | str, ...] = (32, 64, 128, 256, "row")


@dataclass(frozen=True)
class Quantized:
    """A matrix `[N, K]` as codes int8 `[N, K]` and scales `[N, groups]` of the stored type."""

    codes: NDArray[np.int8]
    scales: Floats

    def dequantize(self, group_size: int | str) -> NDArray[np.float32]:
        """`f32(code) * f32(scale)`."""
        out = np.empty(self.codes.shape, np.float32)
        for g, columns in enumerate(groups(self.codes.shape[1], group_size)):
            scale = self.scales[:, g : g + 1].astype(np.float32)
            out[:, columns] = self.codes[:, columns].astype(np.float32) * scale
        return out


def groups(k: int, group_size: int | str) -> Iterator[slice]:
    """The columns of each group; the last one may be shorter."""
    width = max(k, 1) if group_size == "row" else int(group_size)
    for start in range(0, k, width):
        yield slice(start, min(start + width, k))


def pack(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Rows of one little-endian bit stream: code `i` as `q + 32` in bits `6 i .. 6 i + 6`."""
    n, k = codes.shape
    bits = np.zeros((n, -(-k * 6 // 8) * 8), np.uint8)
    for bit in range(6):
        bits[:, bit : 6 * k : 6] = ((codes.astype(np.int16) + 32) >> bit) & 1
    return np.packbits(bits, axis=1, bitorder="little")
