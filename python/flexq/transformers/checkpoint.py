"""Which weights a checkpoint holds packed, by the names the model gives them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from flexq._flexq import Reader

PACKED, SCALE = "_packed", "_scale"


@dataclass(frozen=True)
class Stored:
    """A tensor of a file: its safetensors type and its shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class PackedEntry:
    """A weight of the model that the checkpoint holds packed.

    Attributes:
        name: its name in the checkpoint, without `_packed`; one of several where the
            checkpoint keeps experts apart.
        packed: the stored codes.
        scale: the stored scales.
    """

    name: str
    packed: Stored
    scale: Stored


def read_headers(files: Iterable[str]) -> dict[str, Stored]:
    """Every tensor of safetensors files, by name, without reading data.

    Raises:
        flexq.FormatError: naming a file that is cut off or otherwise malformed.
    """
    return {
        name: Stored(dtype, tuple(shape))
        for file in files
        for name, dtype, shape in Reader(file).stored()
    }


def namer(model: Any, conversions: Iterable[Any]) -> Callable[[str], str]:
    """Translates the name of a stored tensor into that of a parameter of `model`.

    Args:
        model: whose parameters are meant.
        conversions: transformers' steps from a checkpoint of such a model to its parameters.
    """
    steps = list(conversions)
    renamings = [step for step in steps if isinstance(step, WeightRenaming)]
    converters = [step for step in steps if isinstance(step, WeightConverter)]
    expected = model.state_dict()

    def parameter(name: str) -> str:
        renamed, _ = rename_source_key(
            name, renamings, converters, model.base_model_prefix, expected
        )
        return str(renamed)

    return parameter


def packed_weights(
    model: Any, tensors: dict[str, Stored]
) -> tuple[dict[str, PackedEntry], set[str]]:
    """Translates the names of a checkpoint into those of `model`.

    Returns:
        Packed weights by parameter name (`model.layers.0.mlp.up_proj.weight`), and the
        parameter names of the other tensors.

    Raises:
        ValueError: packed codes without scales.
    """
    parameter = namer(model, get_model_conversion_mapping(model))
    packed: dict[str, PackedEntry] = {}
    dense: set[str] = set()
    for name, stored in tensors.items():
        base = name.removesuffix(PACKED)
        if base != name and stored.dtype == "U8":
            if base + SCALE not in tensors:
                raise ValueError(f"{name}: its scales {base + SCALE} are missing")
            packed[parameter(base)] = PackedEntry(base, stored, tensors[base + SCALE])
        elif name.removesuffix(SCALE) + PACKED not in tensors:
            dense.add(parameter(name))
    return packed, dense
