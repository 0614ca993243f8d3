"""Loading tiny models, and what they predict."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

TOKENS = torch.arange(14).view(2, 7)


def exact(directory: Path) -> Any:
    """The configuration of a packed model whose products take activations as they are."""
    config = AutoConfig.from_pretrained(directory)
    config.quantization_config["act_bits"] = 16
    return config


def load(directory: Path, **settings: Any) -> Any:
    """A model from a directory, with its class chosen by transformers."""
    return AutoModelForCausalLM.from_pretrained(directory, **settings)


def logits(model: Any, tokens: torch.Tensor = TOKENS) -> torch.Tensor:
    """What a model predicts, without gradients."""
    with torch.no_grad():
        return model(tokens).logits


def stored(directory: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a directory's safetensors files."""
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(directory.glob("*.safetensors")):
        tensors.update(load_file(file))
    return tensors
