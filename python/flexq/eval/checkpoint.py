"""Tensors of a model directory, plain or packed, one file or sharded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import flexq
from flexq.eval.simulate import Floats

Tensor = npt.NDArray[Any] | flexq.QTensor
Tensors = Mapping[str, Tensor]

INDEX = "model.safetensors.index.json"


def open_checkpoint(model: str | Path) -> Tensors:
    """The tensors of a model directory by name, memory-mapped.

    Raises:
        OSError: if the directory has no safetensors file.
        flexq.FormatError: if a file is malformed.
    """
    model = Path(model)
    index = model / INDEX
    if index.exists():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    tensors: dict[str, Tensor] = {}
    for name in names:
        tensors.update(flexq.load_file(model / Path(name).name))
    return tensors


def to_float32(tensor: Tensor) -> Floats:
    """Values of a plain or packed tensor in float32; uint16 is read as the bits of bfloat16."""
    if isinstance(tensor, flexq.QTensor):
        return tensor.dequantize(np.float32)
    if tensor.dtype == np.uint16:
        return (tensor.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(tensor, dtype=np.float32)
