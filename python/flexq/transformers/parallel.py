"""Packed weights under tensor parallelism."""

from typing import Any

from flexq.torch import PackedWeight
from flexq.transformers.checkpoint import PACKED, SCALE


def plan_with_packed(plan: dict[str, str]) -> dict[str, str]:
    """Entries that shard the codes and scales of fused experts the way `plan` shards the experts."""
    return {
        key + suffix: style
        for key, style in plan.items()
        if key.endswith(("gate_up_proj", "down_proj")) and "experts" in key
        for suffix in (PACKED, SCALE)
    }


def check_alignment(name: str, module: PackedWeight) -> None:
    """Raises where splitting columns among processes would part codes from their scales.

    Codes and scales are split into equal parts each. They belong together only if every
    part holds whole groups; otherwise the product would be wrong without an error.

    Args:
        name: full name of the module, for the message.
        module: after the model was distributed.

    Raises:
        ValueError: `in_features` is no multiple of processes x group size.
    """
    for weight in module.names():
        packed: Any = module.packed(weight)[0]
        if not hasattr(packed, "placements"):
            continue
        for placement, processes in zip(packed.placements, packed.device_mesh.shape, strict=True):
            split = placement.is_shard() and placement.dim in (-1, packed.dim() - 1)
            columns, group = module.columns(weight), module.group_size
            if split and processes > 1 and (group == 0 or columns % (processes * group)):
                raise ValueError(
                    f"{name}.{weight}: {columns} columns in groups of {group or 'a whole row'} "
                    f"cannot be split among {processes} processes: expected a multiple of "
                    f"{processes} x {group or columns}. Use fewer processes, or pack with a "
                    "smaller group size"
                )
