"""Models in place: dense modules out, packed ones in, and back."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from flexq.torch.embedding import FlexQEmbedding
from flexq.torch.experts import FlexQExperts
from flexq.torch.layout import Scheme
from flexq.torch.linear import FlexQLinear
from flexq.torch.module import PackedWeight
from flexq.torch.policy import Activations
from flexq.torch.prepare import prepare
from flexq.torch.report import Coverage, coverage
from flexq.torch.select import Choice, choose


@dataclass(frozen=True)
class Request:
    """What `quantize_model_` was asked for; see its arguments."""

    preset: str
    scheme: Scheme
    activations: Activations
    include: list[str]
    exclude: list[str]


observers: list[Callable[[nn.Module, Choice, Request], None]] = []
"""Called before `quantize_model_` replaces modules; libraries of models keep records with it."""


def quantize_model_(
    model: nn.Module,
    *,
    preset: str = "linear",
    scheme: Scheme | None = None,
    act_bits: int | str = "auto",
    act_bits_overrides: Mapping[str, int | str] | None = None,
    act_group: int | str = "auto",
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
) -> Coverage:
    """Quantizes a model in place, module by module, each on the device it is on.

    With `flexq.transformers` imported, a model of transformers can be saved with
    `save_pretrained` afterwards, and loaded again.

    Args:
        model: any module; its linear layers, embeddings and fused experts are candidates.
        preset: `linear` (all linear layers and experts but lm_head) or `full` (also
            embeddings and lm_head).
        scheme: how weights are quantized.
        act_bits: `auto`, 16, 8 or 6.
        act_bits_overrides: settings for modules that a pattern selects; the first match counts.
        act_group: columns per scale of quantized activations: 128, `row`, which is faster for
            many rows on a GPU and less exact, or `auto`.
        include: patterns of weights to quantize although the preset leaves them alone.
        exclude: patterns of weights to keep.

    Returns:
        What was quantized and what was not.

    Raises:
        ValueError: nothing to quantize, or a pattern that matches nothing.
        flexq.NonFiniteError: a weight that is NaN or infinite.
    """
    scheme = scheme or Scheme()
    include, exclude = list(include), list(exclude)
    choice = choose(model, preset, include, exclude)
    if not choice.targets:
        raise ValueError(f"{type(model).__name__} has no weight to quantize")
    activations = Activations(act_bits, dict(act_bits_overrides or {}), act_group)
    activations.check_matched(choice.products())
    request = Request(preset, scheme, activations, include, exclude)
    for observer in observers:
        observer(model, choice, request)
    replace_(model, choice.modules(), scheme, activations)
    return coverage(prepare(model), choice.kept)


def replace_(
    model: nn.Module,
    modules: Iterable[str],
    scheme: Scheme,
    activations: Activations,
) -> None:
    """Quantizes the modules named, in place."""
    tables: dict[int, PackedWeight] = {}
    for name in modules:
        dense = model.get_submodule(name)
        packed = _quantized(name, dense, scheme, activations, tables)
        model.set_submodule(name, packed)


def _quantized(
    name: str,
    dense: nn.Module,
    scheme: Scheme,
    activations: Activations,
    tables: dict[int, PackedWeight],
) -> PackedWeight:
    """The packed counterpart of a module; `tables` remembers by weight what was packed."""
    packed = empty_like(name, dense, scheme, activations)
    for weight in packed.names():
        parameter = dense.get_parameter(weight)
        # a tied lm_head stays tied: both modules hold the same parameters
        twin = tables.setdefault(id(parameter), packed)
        if twin is packed:
            packed.assign_quantized(weight, parameter, scheme)
        else:
            packed.assign(weight, *twin.packed(weight), parameter.shape[-1])
    if isinstance(packed, FlexQLinear) and isinstance(dense, nn.Linear):
        packed.bias = dense.bias
    return packed


def empty_like(
    name: str,
    dense: nn.Module,
    scheme: Scheme,
    activations: Activations,
) -> PackedWeight:
    """The packed counterpart of a module with its sizes and settings, without memory.

    Args:
        name: the full name of the module, which overrides are matched with.
        dense: the module.
        scheme: how weights are quantized.
        activations: how its products treat them.
    """
    packed: PackedWeight
    if isinstance(dense, nn.Embedding):
        packed = FlexQEmbedding(
            dense.num_embeddings,
            dense.embedding_dim,
            dense.padding_idx,
            scheme=scheme,
            device="meta",
            dtype=dense.weight.dtype,
        )
    elif isinstance(dense, nn.Linear):
        packed = FlexQLinear(
            dense.in_features,
            dense.out_features,
            dense.bias is not None,
            scheme=scheme,
            act_bits=activations.bits_of(name),
            act_group=activations.group,
            device="meta",
            dtype=dense.weight.dtype,
        )
    else:
        gate_up, down = (activations.bits_of(f"{name}.{weight}") for weight in FlexQExperts.WEIGHTS)
        packed = FlexQExperts(
            dense,
            scheme=scheme,
            act_bits=(gate_up, down),
            act_group=activations.group,
            device="meta",
        )
    return packed.train(dense.training)


def dequantize_model_(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Replaces every flexq module by the dense one with the dequantized weights, in place."""
    tables: dict[int, nn.Parameter] = {}
    for name, module in list(model.named_modules()):
        if not isinstance(module, PackedWeight):
            continue
        dense = module.to_dense(dtype)
        for weight in module.names():
            packed, _ = module.packed(weight)
            parameter = tables.setdefault(id(packed), dense.get_parameter(weight))
            setattr(dense, weight, parameter)
        model.set_submodule(name, dense)
    return model
