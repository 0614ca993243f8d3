"""`quantization_config` of a flexq model, as transformers reads and writes it."""

from typing import Any

from transformers.utils.quantization_config import QuantizationConfigMixin

from flexq.torch import Scheme, policy
from flexq.torch.layout import SCALE_DTYPES, format_group_size, parse_group_size

QUANT_METHOD = "flexq"
VERSION = 1


class FlexQConfig(QuantizationConfigMixin):
    """How a model is, or is to be, quantized.

    Args:
        version: of these keys; 1.
        bits: of a weight; 6.
        group_size: columns that share a scale: 32, 64, 128, 256 or `row`.
        scale_rule: `absmax31`, `absmax32s` or `mse`.
        scale_dtype: type of the scales: `F16`, `BF16`, or `PAIR` for two in a word.
        act_bits: of activations: `auto`, 16, 8 or 6.
        act_bits_overrides: settings for modules that a pattern selects, first match first.
        act_group: columns per scale of quantized activations: 128, `row` or `auto`.
        preset: `linear` or `full`, when quantizing on load.
        include: patterns of weights to quantize although the preset leaves them alone.
        modules_to_not_convert: patterns of weights to keep although the preset takes them.
        dequantize: whether a packed model loads as a dense one.
        unknown: keys of other tools, kept as they are.

    Raises:
        ValueError: a value outside the ones named, or a newer version.
    """

    quant_method: Any = QUANT_METHOD

    def __init__(
        self,
        version: int = VERSION,
        bits: int = 6,
        group_size: int | str = 128,
        scale_rule: str = "absmax32s",
        scale_dtype: str = "F16",
        act_bits: int | str = "auto",
        act_bits_overrides: dict[str, int | str] | None = None,
        act_group: int | str = "auto",
        preset: str = "linear",
        include: list[str] | None = None,
        modules_to_not_convert: list[str] | None = None,
        dequantize: bool = False,
        **unknown: Any,
    ) -> None:
        if version != VERSION:
            raise ValueError(f"flexq version {version} of config.json: this flexq reads {VERSION}")
        if bits != 6:
            raise ValueError(f"bits: expected 6, found {bits!r}")
        if preset not in ("linear", "full"):
            raise ValueError(f"preset: expected linear or full, found {preset!r}")
        unknown.pop("quant_method", None)
        self.version = version
        self.bits = bits
        self.group_size = format_group_size(parse_group_size(group_size))
        self.scale_rule = scale_rule
        self.scale_dtype = scale_dtype
        self.act_bits = policy.spell(policy.parse(act_bits))
        self.act_bits_overrides = {
            pattern: policy.spell(policy.parse(setting))
            for pattern, setting in (act_bits_overrides or {}).items()
        }
        policy.parse_group(act_group)
        self.act_group = act_group
        self.preset = preset
        self.include = list(include or ())
        self.modules_to_not_convert = list(modules_to_not_convert or ())
        self.dequantize = dequantize
        self.unknown = unknown
        self.scheme()

    def scheme(self) -> Scheme:
        """The settings that weights are quantized with."""
        if self.scale_dtype not in SCALE_DTYPES:
            raise ValueError(f"scale_dtype: expected F16, BF16 or PAIR, found {self.scale_dtype!r}")
        return Scheme(
            parse_group_size(self.group_size), self.scale_rule, SCALE_DTYPES[self.scale_dtype]
        )

    def activations(self) -> policy.Activations:
        """How products treat activations."""
        return policy.Activations(self.act_bits, self.act_bits_overrides, self.act_group)

    def to_dict(self) -> dict[str, Any]:
        """The keys to store in config.json."""
        stored = {**self.__dict__, "quant_method": self.quant_method}
        stored.update(stored.pop("unknown"))
        return {
            key: value
            for key, value in stored.items()
            if key != "dequantize"
            and value not in ([], {}, None)
            and (key, value) != ("act_group", "auto")
        }
