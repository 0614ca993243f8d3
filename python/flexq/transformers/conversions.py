"""Steps of transformers' weight loading that flexq adds."""

from typing import Any

from transformers.core_model_loading import ConversionOps, WeightConverter

from flexq.torch import Scheme
from flexq.transformers.checkpoint import PACKED, SCALE


class Quantize(ConversionOps):
    """Quantizes a dense weight as it is loaded, so that it is never in memory beside others."""

    def __init__(self, scheme: Scheme) -> None:
        self.scheme = scheme

    def convert(self, input_dict: dict[str, Any], *_: Any, **settings: Any) -> dict[str, Any]:
        """Packs the only tensor of `input_dict` into its module; nothing is left to assign."""
        model, missing_keys = settings["model"], settings.get("missing_keys")
        for name, value in input_dict.items():
            tensor = value[0] if isinstance(value, list) else value
            path, _dot, leaf = name.rpartition(".")
            module = model.get_submodule(path)
            try:
                module.assign_quantized(leaf, tensor, self.scheme)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            for parameter in module.packed(leaf):
                parameter._is_hf_initialized = True
            if missing_keys is not None:
                missing_keys -= {name, name + PACKED, name + SCALE}
        return {}


class RestoreScaleShape(ConversionOps):
    """Gives scales of one group per row back the dimension that splitting experts drops."""

    def convert(self, input_dict: dict[str, Any], *_: Any, **settings: Any) -> dict[str, Any]:
        """Adds a last dimension to every vector."""

        def restore(value: Any) -> Any:
            if isinstance(value, list):
                return [restore(tensor) for tensor in value]
            return value.unsqueeze(-1) if value.dim() == 1 else value

        return {name: restore(value) for name, value in input_dict.items()}

    @property
    def reverse_op(self) -> "RestoreScaleShape":
        """The same: loading and saving both need the dimension."""
        return self


def for_loading(conversions: list[Any]) -> list[Any]:
    """A model's conversions with copies that handle packed weights.

    A converter that merges `experts.*.w1.weight` into `experts.gate_up_proj` gets two
    companions, for `_packed` and for `_scale`. They come first, since the pattern of the
    dense one may match their names too.
    """
    return [*_packed_copies(conversions), *conversions]


def for_saving(conversions: list[Any]) -> list[Any]:
    """The conversions that loading used, so that saving undoes them for packed weights.

    Saving goes through them from the last to the first, so those of packed weights come last.
    """
    packed = [c for c in conversions if c.target_patterns[0].endswith((PACKED, SCALE))]
    dense = [c for c in conversions if c not in packed]
    return [*dense, *(packed or _packed_copies(dense))]


def _packed_copies(conversions: list[Any]) -> list[Any]:
    copies = []
    for converter in conversions:
        if not isinstance(converter, WeightConverter):
            continue
        sources = converter._original_source_patterns
        targets = converter._original_target_patterns
        if not all(source.endswith(".weight") for source in sources):
            continue
        for suffix in (PACKED, SCALE):
            first = [RestoreScaleShape()] if suffix == SCALE else []
            copy = WeightConverter(
                source_patterns=[source + suffix for source in sources],
                target_patterns=[target + suffix for target in targets],
                operations=[*first, *converter.operations],
            )
            for attribute in ("scope_prefix", "base_model_prefix", "force_cpu"):
                if hasattr(converter, attribute):
                    setattr(copy, attribute, getattr(converter, attribute))
            copies.append(copy)
    return copies
