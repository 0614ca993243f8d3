"""Models of any architecture that transformers knows, as scoring sees them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flexq.eval.simulate import Floats, Ids, round_weights
from flexq.eval.variant import Build, Variant
from flexq.policy import Policy

if TYPE_CHECKING:
    from torch import nn


class HuggingFace:
    """A causal language model that transformers loaded."""

    def __init__(self, model: nn.Module, device: str) -> None:
        self.model = model.to(device).eval()
        self.device = device

    def logits(self, ids: Ids) -> Floats:
        """Scores of every next token, `[B, T, vocabulary]`, for ids `[B, T]`."""
        import torch

        with torch.no_grad():
            logits = self.model(torch.from_numpy(ids).to(self.device)).logits
        return np.asarray(logits.float().cpu().numpy())


def load(directory: Path, variant: Variant, build: Build) -> HuggingFace:
    """The model of a directory, plain or packed, under a variant; float32 on a CPU.

    Raises:
        ImportError: without torch and transformers.
        ValueError: for what their modules do not do, or other weights than packed ones have.
    """
    import torch
    from transformers import AutoModelForCausalLM

    import flexq.torch
    import flexq.transformers  # registers the format

    if variant.act_group != 128 or variant.scale_dtype == "pair" or build.simulate:
        raise ValueError(f"variant {variant.name}: not available through transformers")
    dtype = torch.float32 if build.device == "cpu" else torch.float16
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
    packed = any(isinstance(module, flexq.torch.FlexQLinear) for module in model.modules())
    if packed and variant.weight_bits != 6:
        raise ValueError(f"variant {variant.name}: {directory} is packed with 6 bits already")
    if variant.weight_bits == 6:
        if not packed:
            group = 0 if variant.group_size == "row" else variant.group_size
            scheme = flexq.torch.Scheme(group, variant.rule)
            flexq.torch.quantize_model_(model, preset=build.preset, scheme=scheme, act_bits=16)
        _obey(model, variant.policy)
    elif variant.weight_bits is not None:
        if variant.policy != Policy():
            raise ValueError(f"variant {variant.name}: only a16 goes with these weights here")
        _round(model, variant, build)
    return HuggingFace(model, build.device)


def _obey(model: nn.Module, policy: Policy) -> None:
    """Sets the activation bits of packed layers."""
    from flexq.torch import FlexQLinear

    for name, module in model.named_modules():
        if isinstance(module, FlexQLinear):
            module.act_bits = policy.bits(name)


def _round(model: nn.Module, variant: Variant, build: Build) -> None:
    """Rounds the weights of linear layers in place."""
    import torch

    head = model.get_output_embeddings() if build.preset == "linear" else None  # type: ignore[operator]
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            w = module.weight.detach().float().numpy()
            rounded = round_weights(w, variant.weight_bits or 16, variant.group_size)
            module.weight = torch.nn.Parameter(torch.from_numpy(rounded).to(module.weight.dtype))
