"""A linear layer on packed weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from flexq.torch import policy
from flexq.torch.layout import Scheme
from flexq.torch.module import PackedWeight

if TYPE_CHECKING:
    from flexq.torch.siblings import Siblings


class FlexQLinear(PackedWeight):
    """`y = x @ W.T + bias` with W `[out_features, in_features]` in 6 bits.

    Args:
        in_features: K.
        out_features: N.
        bias: whether there is a bias `[N]`.
        scheme: how the weight is quantized.
        act_bits: `auto`, 16, 8 or 6.
        act_group: columns per scale of quantized activations: 128, `row` or `auto`.
        device: where to make the parameters.
        dtype: type of the bias.
    """

    weight_packed: nn.Parameter
    weight_scale: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        scheme: Scheme | None = None,
        act_bits: int | str = "auto",
        act_group: int | str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        scheme = scheme or Scheme()
        super().__init__(scheme.group_size)
        # set by `flexq.torch.siblings`
        self.siblings: Siblings | None = None
        self.place = 0
        self.in_features = in_features
        self.out_features = out_features
        self.act_bits = policy.parse(act_bits)
        self.act_group = policy.parse_group(act_group)
        self.declare("weight", (out_features, in_features), scheme.scale_dtype, device)
        self.register_parameter(
            "bias",
            nn.Parameter(torch.empty(out_features, device=device, dtype=dtype)) if bias else None,
        )

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        *,
        scheme: Scheme | None = None,
        act_bits: int | str = "auto",
        act_group: int | str = "auto",
    ) -> Self:
        """The quantized counterpart of `linear`, on the same device; its bias is shared."""
        scheme = scheme or Scheme()
        module = cls(
            linear.in_features,
            linear.out_features,
            scheme=scheme,
            act_bits=act_bits,
            act_group=act_group,
            device="meta",
        )
        module.assign_quantized("weight", linear.weight, scheme)
        module.bias = linear.bias
        return module.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """Takes x `[..., K]` in float16, bfloat16 or float32; the result `[..., N]` likewise."""
        if self.siblings is not None:
            part = self.siblings.product(self, x)
            if part is not None:
                return part
        # each look-up of a parameter costs a tenth of a small product, so once
        packed = self.weight_packed
        reordered = self._reordered.get("weight")
        out: Tensor = torch.ops.flexq.linear(
            x,
            packed,
            self.weight_scale,
            self.bias,
            reordered[0] if reordered else packed.shape[0],
            self.group("weight"),
            self.act_bits,
            act_group=self.act_group,
        )
        return out

    def assign(self, name: str, packed: Tensor, scale: Tensor, columns: int) -> None:
        """Sets the weight; see `PackedWeight.assign`."""
        self.siblings = None
        super().assign(name, packed, scale, columns)

    def _restore(self) -> None:
        self.siblings = None
        super()._restore()

    def to_dense(self, dtype: torch.dtype) -> nn.Linear:
        """The `nn.Linear` with the dequantized weight."""
        linear = nn.Linear(
            self.in_features, self.out_features, self.bias is not None, device="meta", dtype=dtype
        )
        linear.weight = nn.Parameter(self.dequantize("weight", dtype), requires_grad=False)
        if self.bias is not None:
            linear.bias = nn.Parameter(self.bias.detach().to(dtype), requires_grad=False)
        return linear.train(self.training)

    def extra_repr(self) -> str:
        """Sizes and settings, as `print(model)` shows them."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, group_size={self.group_size or 'row'}, "
            f"act_bits={policy.spell(self.act_bits)}"
        )
