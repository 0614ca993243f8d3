"""Quantization in plain numpy: rounded values kept in float32.

It serves three ends: a check on the packed kernels, bit widths that flexq does not
store (the 4-bit control), and models whose products flexq does not run itself.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
ActGroup = int | Literal["row"]


def round_activations(x: Floats, bits: int, group: ActGroup = 128) -> Floats:
    """Rows `[..., K]` after symmetric rounding to `bits` bits, one scale per row and group.

    The steps are those of the kernels (design: scale = largest magnitude / (2^(bits-1) - 1),
    half to even); 16 bits and more leave `x` as it is.
    """
    if bits >= 16:
        return x
    limit = np.float32(2 ** (bits - 1) - 1)
    grouped, columns = _groups(x, group)
    scale = np.abs(grouped).max(-1, keepdims=True) / limit
    steps = np.divide(grouped, scale, out=np.zeros_like(grouped), where=scale != 0)
    codes = np.clip(np.rint(steps), -limit, limit)
    return _ungroup(codes * scale, columns)


def round_weights(w: Floats, bits: int, group: ActGroup = 128) -> Floats:
    """Weights `[N, K]` after symmetric rounding to `bits` bits, scales in float16.

    The plainest rule: the largest magnitude of a group falls on the largest code.
    """
    limit = np.float32(2 ** (bits - 1) - 1)
    grouped, columns = _groups(w, group)
    scale = (np.abs(grouped).max(-1, keepdims=True) / limit).astype(np.float16).astype(np.float32)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    codes = np.clip(np.rint(grouped * inverse), -limit - 1, limit)
    return _ungroup(codes * scale, columns)


def _groups(x: Floats, group: ActGroup) -> tuple[Floats, int]:
    """`x` as `[..., groups, width]`, the last group filled up with zeros."""
    columns = x.shape[-1]
    width = columns if group == "row" else group
    missing = -columns % width
    if missing:
        x = np.concatenate([x, np.zeros((*x.shape[:-1], missing), np.float32)], axis=-1)
    return x.reshape(*x.shape[:-1], -1, width), columns


def _ungroup(grouped: Floats, columns: int) -> Floats:
    flat = grouped.reshape(*grouped.shape[:-2], -1)
    return np.ascontiguousarray(flat[..., :columns], dtype=np.float32)
