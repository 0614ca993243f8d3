"""Models of transformers that `flexq.torch.quantize_model_` packs in memory."""

from typing import Any

from transformers.quantizers.base import _assign_is_quantized

from flexq.torch.select import Choice
from flexq.transformers.config import FlexQConfig
from flexq.transformers.quantizer import FlexQQuantizer
from flexq.transformers.saving import install
from flexq.transformers.ties import settle


def adopt(model: Any, choice: Choice, settings: dict[str, Any]) -> None:
    """Makes `model` what loading with a `FlexQConfig` makes of it: it can be saved and loaded.

    Args:
        model: whose modules are about to be replaced.
        choice: which ones.
        settings: keywords of `FlexQConfig`.
    """
    config = FlexQConfig(**settings)
    quantizer = FlexQQuantizer(config, pre_quantized=False)
    quantizer.choice = choice
    settle(model, {target.parameter for target in choice.targets})
    model.hf_quantizer = quantizer
    model.config.quantization_config = config
    model.quantization_method = config.quant_method
    model.is_quantized = True
    _assign_is_quantized(model)
    quantizer.remember_conversions(model)
    install(model)
