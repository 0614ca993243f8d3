"""What is compared: a model in float, or quantized in a named way."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

import flexq
from flexq.eval.checkpoint import Tensor, Tensors, to_float32
from flexq.eval.llama import HEAD, Linear, Llama, load_llama, table_name
from flexq.eval.simulate import ActGroup, Floats, round_activations, round_weights
from flexq.policy import PAPER, Policy

STANDARD = ("float", "w6a16", "w6a8", "w6ax", "w6a6", "w4a16")
"""What `eval` compares unless told otherwise."""

_OPTIONS: dict[str, tuple[str, Any]] = {
    "rows": ("act_group", "row"),
    "absmax31": ("rule", "absmax31"),
    "absmax32s": ("rule", "absmax32s"),
    "mse": ("rule", "mse"),
    "g32": ("group_size", 32),
    "g64": ("group_size", 64),
    "g128": ("group_size", 128),
    "g256": ("group_size", 256),
    "grow": ("group_size", "row"),
    "pair": ("scale_dtype", "pair"),
}


@dataclass(frozen=True)
class Variant:
    """A way to quantize a model.

    Attributes:
        name: as written on the command line.
        weight_bits: None for float weights; 6 goes through flexq's own kernels,
            other widths are simulated.
        policy: activation bits by layer.
        group_size: columns a weight scale.
        rule: scale rule of 6-bit weights.
        scale_dtype: how their scales are stored.
        act_group: columns an activation scale.
    """

    name: str
    weight_bits: int | None = None
    policy: Policy = field(default_factory=Policy)
    group_size: ActGroup = 128
    rule: str = "absmax32s"
    scale_dtype: Literal["float16", "bfloat16", "pair"] = "float16"
    act_group: ActGroup = 128

    @classmethod
    def parse(cls, text: str, policy: Policy = PAPER) -> Variant:
        """Reads `float`, or `w6a8` and its kin with options, such as `w6a8:g64:mse:rows`.

        `w2` to `w8` are weight bits, `a16`, `a8`, `a6` activation bits, and `ax` the given
        policy; `g32` to `g256` and `grow` set the weight group, a scale rule's name the rule,
        `pair` two scales a group, and `rows` one activation scale a row.

        Raises:
            ValueError: for anything else.
        """
        if text == "float":
            return cls("float")
        kind, *options = text.split(":")
        weights, _, acts = kind.partition("a")
        known = weights[:1] == "w" and weights[1:] in tuple("2345678")
        if not known or acts not in ("16", "8", "6", "x"):
            raise ValueError(
                f"variant {text!r}: expected float, w6a16, w6a8, w6ax, w4a16 or the like"
            )
        settings: dict[str, Any] = {}
        for option in options:
            if option not in _OPTIONS:
                choices = ", ".join(_OPTIONS)
                raise ValueError(f"variant {text!r}: option {option!r}: expected one of {choices}")
            key, value = _OPTIONS[option]
            settings[key] = value
        chosen = policy if acts == "x" else Policy(int(acts))
        return cls(text, int(weights[1:]), chosen, **settings)


@dataclass(frozen=True)
class Build:
    """How variants become models.

    Attributes:
        preset: `linear` leaves the output head and the embedding in float,
            `full` quantizes them too.
        simulate: round in float32 instead of running flexq's products.
        device: `cpu` or `cuda`, for flexq's products.
    """

    preset: Literal["linear", "full"] = "linear"
    simulate: bool = False
    device: str = "cpu"

    def model(self, directory: Path, tensors: Tensors, variant: Variant) -> Llama:
        """The model of a directory under a variant.

        Raises:
            ValueError: if its tensors are packed and the variant asks for other weights.
        """
        table = table_name(tensors)
        if self.preset == "full" and variant.weight_bits is not None:
            tensors = {**tensors, table: self.weights(table, tensors[table], variant)}
        return load_llama(directory, tensors, lambda name, w: self.linear(name, w, variant))

    def linear(self, name: str, tensor: Tensor, variant: Variant) -> Linear:
        """One linear layer under a variant."""
        packed = isinstance(tensor, flexq.QTensor)
        if variant.weight_bits is None or (name == HEAD and self.preset == "linear" and not packed):
            return float_linear(to_float32(tensor))
        bits = variant.policy.bits(name)
        w = self.weights(name, tensor, variant)
        if isinstance(w, flexq.QTensor) and not self.simulate:
            return packed_linear(w, bits, variant.act_group, self.device)
        return rounded_linear(to_float32(w), bits, variant.act_group)

    def weights(self, name: str, tensor: Tensor, variant: Variant) -> Tensor:
        """A matrix under a variant that quantizes: packed, or rounded where flexq does not pack."""
        if variant.weight_bits != 6:
            if isinstance(tensor, flexq.QTensor):
                raise ValueError(f"variant {variant.name}: {name} is packed with 6 bits already")
            return round_weights(to_float32(tensor), variant.weight_bits or 16, variant.group_size)
        if isinstance(tensor, flexq.QTensor):
            return tensor
        return flexq.quantize(
            to_float32(tensor),
            group_size=variant.group_size,
            rule=variant.rule,
            scale_dtype=variant.scale_dtype,
        )


def float_linear(w: Floats) -> Linear:
    """The product with float weights."""
    return lambda x: x @ w.T


def rounded_linear(w: Floats, act_bits: int, act_group: ActGroup) -> Linear:
    """The product of rounded activations with float weights."""
    return lambda x: round_activations(x, act_bits, act_group) @ w.T


def packed_linear(q: flexq.QTensor, act_bits: int, act_group: ActGroup, device: str) -> Linear:
    """The product of flexq with packed weights; on a GPU with activations in float16."""
    if device == "cpu":
        return lambda x: flexq.matmul(x, q, act_bits=act_bits, act_group=act_group)
    held = q.to(device)

    def linear(x: Floats) -> Floats:
        half = x.astype(np.float16)
        y = flexq.matmul(half, held, act_bits=act_bits, act_group=act_group, device=device)
        return np.asarray(y, np.float32)

    return linear
