"""Models of transformers that `flexq.torch.quantize_model_` packs in memory."""

import torch
from torch import nn
from transformers import PreTrainedModel

from flexq.torch.convert import Request
from flexq.torch.layout import format_group_size
from flexq.torch.select import Choice
from flexq.transformers.config import FlexQConfig
from flexq.transformers.quantizer import FlexQQuantizer
from flexq.transformers.ties import settle


def adopt(model: nn.Module, choice: Choice, request: Request) -> None:
    """Makes a model of transformers what loading it with a `FlexQConfig` does.

    Args:
        model: whose modules are about to be replaced; others than transformers' are left alone.
        choice: which ones.
        request: how.
    """
    if not isinstance(model, PreTrainedModel):
        return
    is_half = request.scheme.scale_dtype == torch.float16
    config = FlexQConfig(
        group_size=format_group_size(request.scheme.group_size),
        scale_rule=request.scheme.scale_rule,
        scale_dtype="F16" if is_half else "BF16",
        act_bits=request.activations.bits,
        act_bits_overrides=dict(request.activations.overrides),
        act_group=request.activations.group,
        preset=request.preset,
        include=request.include,
        modules_to_not_convert=request.exclude,
    )
    quantizer = FlexQQuantizer(config, pre_quantized=False)
    quantizer.choice = choice
    settle(model, {target.parameter for target in choice.targets})
    quantizer.own(model)
