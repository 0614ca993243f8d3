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

FAMILIES = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of layers whose input is the same, in the order in which they are called."""


class Siblings:
    """Layers joined to one weight.

    The part of a later layer is used only for the very tensor that the first was called with;
    for any other input the layers part, and multiply on their own from then on.
    """

    def __init__(self, members: list[FlexQLinear], packed: Tensor, scale: Tensor) -> None:
        self.members = members
        self.codes = [member.weight_packed for member in members]
        self.packed = packed
        self.scale = scale
        self.sizes = [member.out_features for member in members]
        biases: list[Tensor] = [m.bias for m in members if m.bias is not None]
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
        if is_replaced or (place and (ready is None or ready[0] is not x)):
            self.part()
            return None
        if place == 0:
            out = torch.ops.flexq.linear(
                x,
                self.packed,
                self.scale,
                self.bias,
                sum(self.sizes),
                layer.group_size,
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
    if len(kinds) > 1 or any(member.siblings or _is_partial(member) for member in members):
        return
    weights = [member.packed("weight") for member in members]
    rows = [member.out_features for member in members]
    if weights[0][0].dim() > 1 and canonical:
        packed = torch.cat([codes.detach() for codes, _ in weights])
        scale = torch.cat([scales.detach() for _, scales in weights])
        parts = zip(packed.split(rows), scale.split(rows), strict=True)
    elif weights[0][0].dim() == 1 and all(count % cuda.TILE_ROWS == 0 for count in rows):
        packed, scale = cuda.concatenate(weights, rows)
        sizes = [codes.numel() for codes, _ in weights]
        parts = zip(packed.split(sizes), (scales for _, scales in weights), strict=True)
    else:
        return
    joined = Siblings(members, packed, scale)
    for place, (member, (codes, scales)) in enumerate(zip(members, parts, strict=True)):
        member.weight_packed.data = codes
        member.weight_scale.data = scales.detach()
        member.siblings, member.place = joined, place


def _kind(member: FlexQLinear) -> tuple[Any, ...]:
    """What joined layers have in common."""
    codes, scales = member.packed("weight")
    bias = None if member.bias is None else member.bias.dtype
    settings = (
        member.in_features,
        member.group_size,
        member.act_bits,
        member.act_group,
        bias,
    )
    return (*settings, codes.device, codes.dim(), scales.dtype)


def _is_partial(member: FlexQLinear) -> bool:
    """Whether a layer has no memory, or one process's part of its weight."""
    codes = member.packed("weight")[0]
    whole = member.rows("weight") == (member.out_features,)
    return codes.is_meta or type(codes.data) is not Tensor or not whole
