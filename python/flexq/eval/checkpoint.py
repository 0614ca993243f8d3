"""Tensors of a model directory as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import flexq
from flexq.eval.simulate import Floats

Tensor = npt.NDArray[Any] | flexq.QTensor
Tensors = Mapping[str, Tensor]


def to_float32(tensor: Tensor) -> Floats:
    """Values of a plain or packed tensor in float32; uint16 is read as the bits of bfloat16."""
    if isinstance(tensor, flexq.QTensor):
        return tensor.dequantize(np.float32)
    if tensor.dtype == np.uint16:
        return (tensor.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(tensor, dtype=np.float32)
