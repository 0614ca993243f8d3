"""Packed weights under tensor parallelism."""

from typing import Any

from torch import distributed

from flexq.torch import FlexQEmbedding, FlexQExperts, PackedWeight
from flexq.transformers.checkpoint import PACKED, SCALE


def is_shared(model: Any) -> bool:
    """Whether several processes are to share the weights of a model that is being loaded."""
    asked = getattr(model.config, "distributed_config", None) is not None
    return asked and distributed.is_initialized() and distributed.get_world_size() > 1


def adjust_plan(model: Any) -> None:
    """Makes the tensor-parallel plan of a model fit its packed modules.

    Codes and scales of experts are sharded like the experts were. A packed embedding, and an
    lm_head tied to it, is whole in every process.
    """
    plan = model.tp_plan
    whole = {name for name in model.all_tied_weights_keys if name.endswith(PACKED)}
    whole = {name.rpartition(".")[0] for name in whole}
    for name, module in model.named_modules():
        if isinstance(module, FlexQEmbedding):
            whole.add(name)
        elif isinstance(module, FlexQExperts):
            for weight in module.names():
                key = _wildcard(f"{name}.{weight}")
                if key in plan:
                    plan.update({key + suffix: plan[key] for suffix in (PACKED, SCALE)})
    for key in whole & plan.keys():
        del plan[key]


def _wildcard(name: str) -> str:
    """A name with `*` for numbers, as plans spell it."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


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
