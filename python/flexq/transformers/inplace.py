"""Models of transformers that `flexq.torch.quantize_model_` packs in memory."""

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
    config = FlexQConfig(
        group_size=format_group_size(request.scheme.group_size),
        scale_rule=request.scheme.scale_rule,
        scale_dtype=request.scheme.scale_name,
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
