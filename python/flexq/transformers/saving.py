"""Saving: transformers writes the tensors, flexq the manifests that `flexq-pack verify` reads."""

import os
from pathlib import Path
from types import MethodType
from typing import Any

from transformers.conversion_mapping import get_model_conversion_mapping

from flexq import _flexq
from flexq.torch import PackedWeight
from flexq.transformers.checkpoint import PACKED, namer, read_headers
from flexq.transformers.conversions import for_loading


def install(model: Any) -> None:
    """Makes `model.save_pretrained` write manifests too."""
    model.save_pretrained = MethodType(save_pretrained, model)


def uninstall(model: Any) -> None:
    """Undoes `install`, for a model that became dense."""
    model.__dict__.pop("save_pretrained", None)


def save_pretrained(
    self: Any,
    save_directory: str | os.PathLike[str],
    is_main_process: bool = True,
    state_dict: dict[str, Any] | None = None,
    push_to_hub: bool = False,
    *args: Any,
    **kwargs: Any,
) -> None:
    """`PreTrainedModel.save_pretrained` of a packed model, with the same arguments.

    Files are written twice: by transformers, then with the manifest in front. A `variant`
    stays without.

    Raises:
        ValueError: in a run of several processes, which each hold a part of the weights.
    """
    if getattr(self, "tp_size", None) not in (None, 1):
        raise ValueError(
            "a packed model that several processes share cannot be saved: load it in one process"
        )
    hub = {}
    if push_to_hub:
        names = ("repo_id", "commit_message", "create_pr", "private", "revision", "token", "tags")
        hub = {name: kwargs.pop(name) for name in names if name in kwargs}
    save = type(self).save_pretrained
    save(self, save_directory, is_main_process, state_dict, False, *args, **kwargs)
    if is_main_process and kwargs.get("variant") is None:
        seal(self, Path(save_directory))
    if push_to_hub:
        self.push_to_hub(hub.pop("repo_id", Path(save_directory).name), **hub)


def seal(model: Any, directory: Path) -> None:
    """Adds manifests to the files that `model` was saved to.

    Args:
        model: packed.
        directory: where; one without packed tensors, such as that of an adapter, is left alone.
    """
    files = sorted(map(str, directory.glob("model*.safetensors")))
    parameter = namer(model, for_loading(get_model_conversion_mapping(model)))
    shapes = {}
    for stored, tensor in read_headers(files).items():
        path, _dot, leaf = parameter(stored).rpartition(".")
        if not leaf.endswith(PACKED):
            continue
        module = model.get_submodule(path)
        if isinstance(module, PackedWeight):
            columns = module.columns(leaf.removesuffix(PACKED))
            shapes[stored.removesuffix(PACKED)] = [*tensor.shape[:-1], columns]
    if shapes:
        config = model.config.quantization_config
        _flexq.seal(
            directory,
            shapes,
            str(model.dtype).removeprefix("torch."),
            config.group_size,
            config.scale_rule,
            {"F16": "float16", "BF16": "bfloat16", "PAIR": "pair"}[config.scale_dtype],
        )
