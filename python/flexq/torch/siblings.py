"""Linear layers that read the same input, multiplied as one.

Attention projects its input three times and a gated network twice. Each product pays for a
launch and for the time until memory is busy, which for few rows is a good part of it. So
`join` lays the codes of such layers behind each other, and the first of them to be called
multiplies with all; the others find their part ready. The layers keep their parameters, which
become views. Scales are held twice where the order of a GPU interleaves them: 2 % of the bytes.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from flexq.torch import cuda
from flexq.torch.linear import FlexQLinear
from flexq.torch.module import local

FAMILIES = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of layers whose input is the same, in the order in which they are called."""


class Siblings:
    """Layers joined to one weight.

    The part of a later layer is used only for the very tensor that the first was called with, or
    another view of it; for any other input the layers part, and multiply on their own from then on.
    """

    def __init__(
        self, members: list[FlexQLinear], packed: Tensor, scale: Tensor, sizes: list[int]
    ) -> None:
        self.members = members
        self.codes = [member.weight_packed for member in members]
        self.packed = packed
        self.scale = scale
        self.sizes = sizes
        biases: list[Tensor] = [local(m.bias) for m in members if m.bias is not None]
        self.bias = torch.cat(biases).detach() if biases else None
        for tensor in (self.packed, self.scale, self.bias):
            if tensor is not None:
                # a recorded graph may rely on the address, as on that of a parameter
                torch._dynamo.mark_static_address(tensor)
        # input and parts, in one attribute: another thread sees both or neither
        self._ready: tuple[Tensor, tuple[Tensor, ...]] | None = None

    def product(self, layer: FlexQLinear, x: Tensor) -> Tensor | None:
        """The product of one layer, or nothing where it has to multiply itself."""
        place, ready = layer.place, self._ready
        # hooks that offload weights put other parameters into a layer
        is_replaced = (
            not torch.compiler.is_compiling() and layer.weight_packed is not self.codes[place]
        )
        if is_replaced or (place and (ready is None or not _is_same(ready[0], x))):
            self.part()
            return None
        if place == 0:
            out = torch.ops.flexq.linear(
                x,
                self.packed,
                self.scale,
                self.bias,
                sum(self.sizes),
                layer.group("weight"),
                layer.act_bits,
                act_group=layer.act_group,
            )
            ready = (x, out.split(self.sizes, dim=-1))
        assert ready is not None
        self._ready = None if place == len(self.sizes) - 1 else ready
        return ready[1][place]

    def part(self) -> None:
        """Lets every layer multiply on its own again."""
        self._ready = None
        for member in self.members:
            member.siblings = None

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of a model has no joined layers: its parameters are no views."""

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()


def _is_same(found: Tensor, x: Tensor) -> bool:
    """Whether two tensors are one, or views of all of it, as tensor parallelism passes them."""
    if found is x or torch.compiler.is_compiling():
        return found is x
    kinds = [(t.data_ptr(), t.shape, t.stride(), t.dtype) for t in (found, x)]
    return kinds[0] == kinds[1]


def join(model: nn.Module, *, canonical: bool = False) -> nn.Module:
    """Joins the layers of `FAMILIES` in every module of `model`, where they fit each other.

    Args:
        model: prepared.
        canonical: whether to join weights in the order of a file too, as on a CPU.
    """
    for parent in model.modules():
        for names in FAMILIES:
            members = [getattr(parent, name, None) for name in names]
            if all(isinstance(member, FlexQLinear) for member in members):
                _join(cast("list[FlexQLinear]", members), canonical)
    return model


def _join(members: list[FlexQLinear], canonical: bool) -> None:
    kinds = {_kind(member) for member in members}
    if len(kinds) > 1 or any(m.siblings or m.weight_packed.is_meta for m in members):
        return
    weights = [_local_weight(member) for member in members]
    if weights[0][0].dim() > 1 and canonical:
        rows = [len(codes) for codes, _ in weights]
        packed = torch.cat([codes for codes, _ in weights])
        scale = torch.cat([scales for _, scales in weights])
        parts = zip(packed.split(rows), scale.split(rows), strict=True)
    elif weights[0][0].dim() == 1:
        rows = [member.rows("weight")[0] for member in members]
        if any(count % cuda.TILE_ROWS for count in rows):
            return
        packed, scale = cuda.concatenate(weights, rows)
        sizes = [codes.numel() for codes, _ in weights]
        parts = zip(packed.split(sizes), (scales for _, scales in weights), strict=True)
    else:
        return
    for member, (codes, scales) in zip(members, parts, strict=True):
        member.exchange("weight", codes, scales)
    joined = Siblings(members, packed, scale, rows)
    for place, member in enumerate(members):
        member.siblings, member.place = joined, place


def _kind(member: FlexQLinear) -> tuple[Any, ...]:
    """What joined layers have in common."""
    codes, scales = member.packed("weight")
    bias = None if member.bias is None else member.bias.dtype
    settings = (
        member.in_features,
        member.group("weight"),
        member.act_bits,
        member.act_group,
        bias,
    )
    return (*settings, codes.device, codes.dim(), scales.dtype)


def _local_weight(member: FlexQLinear) -> tuple[Tensor, Tensor]:
    """Codes and scales of a layer, or of this process's part of it."""
    codes, scales = member.packed("weight")
    return local(codes).detach(), local(scales).detach()
