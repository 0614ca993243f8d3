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
PAIRED_GROUPS = (32, 64, 128)


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


def quantize(
    w: Floats, group_size: int | str = 128, rule: str = "absmax32s", scale_dtype: str = "float16"
) -> Quantized:
    """Codes and scales of finite weights `[N, K]` whose scales do not overflow."""
    w = w.astype(np.float32)
    stored = FLOAT_TYPES[scale_dtype]
    codes = np.zeros(w.shape, np.int8)
    scales = []
    for columns in groups(w.shape[1], group_size):
        part = w[:, columns]
        scale = _scale(part, rule, stored)
        scales.append(scale)
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = np.rint(part / scale.astype(np.float32)[:, None])
        zero = (scale == 0)[:, None]
        codes[:, columns] = np.where(zero, 0, np.clip(steps, -32, 31)).astype(np.int8)
    empty = np.zeros((len(w), 0), stored)
    return Quantized(codes, np.stack(scales, axis=1) if scales else empty)


def _scale(part: NDArray[np.float32], rule: str, stored: Any) -> Floats:
    """The scale of each row of one group, rounded to the stored type; +0 where it vanishes."""
    high = part.max(axis=1).clip(min=0)
    low = part.min(axis=1).clip(max=0)
    if rule == "absmax31":
        exact = np.maximum(high, -low) / np.float32(31)
    else:
        # the element of largest magnitude, the positive one of two, goes to code -32
        exact = np.where(high >= -low, high, low) / np.float32(-32)
    scale = np.where(exact.astype(stored) == 0, 0, exact).astype(stored)
    if rule == "mse":
        scale = np.array(
            [_search(*row, stored) for row in zip(part, exact, scale, strict=True)], stored
        )
    return scale


# the candidates of `mse`, in this order: the first of equals wins
FACTORS = (
    1.0,
    0.99,
    0.98,
    0.97,
    0.96,
    0.94,
    0.92,
    0.9,
    0.87,
    0.84,
    0.8,
    0.75,
    1.01,
    1.02,
    1.03,
    1.05,
)


def _search(w: NDArray[np.float32], exact: Any, rounded: Any, stored: Any) -> Any:
    """The candidate of least squared error, in float32 and in the order the rule prescribes."""
    base = np.float32(rounded)
    best, least = rounded, np.float32(np.inf)
    if base == 0:
        return rounded
    for factor in FACTORS:
        bits = (np.float32(exact) * np.float32(factor)).astype(stored)
        candidate = np.float32(bits)
        with np.errstate(all="ignore"):
            steps = w * (np.float32(1) / candidate)
            error = (steps - np.clip(np.rint(steps), -32, 31)) ** 2
            total = _sum_in_lanes(error) * (candidate / base) ** 2
        if total < least:
            best, least = bits, total
    return best


def unpair(words: NDArray[np.uint16]) -> NDArray[np.float16]:
    """The two scales of each word `[N, groups]`, as `[N, 2 * groups]`."""
    word = words.astype(np.int32)
    first = (word >> 6 & 511) << 5
    second = np.maximum(first + ((word & 31) - 16) * 64, 0)
    signs = [word >> 15 & 1, word >> 5 & 1]
    halves = [bits | sign << 15 for bits, sign in zip((first, second), signs, strict=True)]
    return np.stack(halves, axis=-1).reshape(len(words), -1).astype(np.uint16).view(np.float16)


@dataclass(frozen=True)
class Paired:
    """As `Quantized`, with words `[N, groups]` of two scales each."""

    codes: NDArray[np.int8]
    words: NDArray[np.uint16]

    def dequantize(self, group_size: int) -> NDArray[np.float32]:
        """`f32(code) * f32(scale)`."""
        scales = unpair(self.words)[:, : -(-self.codes.shape[1] // (group_size // 2))]
        return Quantized(self.codes, scales).dequantize(group_size // 2)


def quantize_pairs(w: Floats, group_size: int, rule: str = "absmax32s") -> Paired:
    """As `quantize`, with a scale for each half of a group, both in one word."""
    w = w.astype(np.float32)
    codes = np.zeros(w.shape, np.int8)
    words = np.zeros((len(w), -(-w.shape[1] // group_size)), np.uint16)
    for n, row in enumerate(w):
        for g, columns in enumerate(groups(w.shape[1], group_size)):
            halves = np.split(row[columns], [group_size // 2])
            words[n, g] = _word(halves, rule)
            scales = unpair(words[n : n + 1, g : g + 1])[0].astype(np.float32)
            with np.errstate(divide="ignore", invalid="ignore"):
                steps = [
                    np.clip(np.rint(half / scale), -32, 31) if scale else np.zeros_like(half)
                    for half, scale in zip(halves, scales, strict=True)
                ]
            codes[n, columns] = np.concatenate(steps).astype(np.int8)
    return Paired(codes, words)


def _word(halves: list[NDArray[np.float32]], rule: str) -> int:
    """The word of one group."""
    exact = []
    for half in halves:
        high, low = max(half.max(initial=0), 0), min(half.min(initial=0), 0)
        largest = high if high >= -low else low
        scale = (
            max(high, -low) / np.float32(31) if rule == "absmax31" else largest / np.float32(-32)
        )
        exact.append(np.float32(scale))
    places = [(int(np.float16(abs(scale)).view(np.uint16)) + 16) >> 5 for scale in exact]
    signs = [bool(scale < 0) for scale in exact]
    first = max(places[0], places[1] - 30)
    second = max(places[1], first - 32)
    steps = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, -1, -2) if rule == "mse" else (0, 1)
    best, least = (0, 0), np.float32(np.inf)
    for i in steps if rule == "mse" else (0,):
        for j in steps:
            a, b = first + i, second + j
            if not (0 <= a <= 511 and b >= 0 and (b - a) % 2 == 0 and -32 <= b - a <= 30):
                continue
            if rule != "mse":
                return _spell(a, b, signs)
            errors = [
                _error(half, place, sign)
                for half, place, sign in zip(halves, (a, b), signs, strict=True)
            ]
            if errors[0] + errors[1] < least:
                best, least = (a, b), errors[0] + errors[1]
    return _spell(*best, signs)


def _spell(first: int, second: int, signs: list[bool]) -> int:
    return signs[0] << 15 | first << 6 | signs[1] << 5 | ((second - first) // 2 + 16)


def _error(w: NDArray[np.float32], place: int, negative: bool) -> Any:
    """The squared error of a half, in float32 and in the order the rule prescribes."""
    if place <= 0:
        return _sum_in_lanes(w**2)
    scale = np.float32(np.uint16(place << 5).view(np.float16)) * np.float32(-1 if negative else 1)
    steps = w * (np.float32(1) / scale)
    return _sum_in_lanes((steps - np.clip(np.rint(steps), -32, 31)) ** 2) * (scale * scale)


def _sum_in_lanes(values: NDArray[np.float32]) -> Any:
    """Element i goes to lane i mod 16, then the upper half joins the lower."""
    lanes = np.zeros(16, np.float32)
    for start in range(0, len(values), 16):
        lanes[: len(values) - start] += values[start : start + 16]
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    return lanes[0]


def quantize_activations(
    x: Floats, bits: int, group_size: int | str = 128
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes `[M, K]` and the scale of every column `[M, K]`."""
    x = x.astype(np.float32)
    limit = {8: 127, 6: 31}[bits]
    codes, scales = np.zeros(x.shape, np.int8), np.zeros(x.shape, np.float32)
    for columns in groups(x.shape[1], group_size):
        scale = np.abs(x[:, columns]).max(axis=1, keepdims=True) / np.float32(limit)
        scales[:, columns] = scale
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = np.where(scale > 0, np.rint(x[:, columns] / scale), 0)
        codes[:, columns] = np.clip(steps, -limit, limit).astype(np.int8)
    return codes, scales


def matmul(
    x: Floats, w: NDArray[np.float32], act_bits: int = 16, act_group: int | str = 128
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The product with dequantized weights in float64, and the sum of its terms' magnitudes."""
    if act_bits == 16:
        exact = x.astype(np.float64)
    else:
        codes, scales = quantize_activations(x, act_bits, act_group)
        exact = codes.astype(np.float64) * scales.astype(np.float64)
    weights = w.astype(np.float64)
    return exact @ weights.T, np.abs(exact) @ np.abs(weights).T
