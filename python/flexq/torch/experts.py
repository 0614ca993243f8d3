"""A stack of feed-forward experts on packed weights."""

import copy
from collections.abc import Callable
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from flexq.torch import policy
from flexq.torch.layout import Scheme
from flexq.torch.module import PackedWeight


class FlexQExperts(PackedWeight):
    """Gated experts: `down(act(gate(x)) * up(x))`, each token through those chosen for it.

    Takes the place of transformers' fused experts (Mixtral, Qwen-MoE and their
    kin), which keep `gate_up_proj [E, 2 I, H]` and `down_proj [E, H, I]`.

    Args:
        experts: the dense module, for its sizes and its activation.
        scheme: how the weights are quantized.
        act_bits: settings of `gate_up_proj` and `down_proj`.
        act_group: columns per scale of quantized activations: 128, `row` or `auto`.
        device: where to make the parameters.
    """

    gate_up_proj_packed: nn.Parameter
    gate_up_proj_scale: nn.Parameter
    down_proj_packed: nn.Parameter
    down_proj_scale: nn.Parameter

    WEIGHTS = ("gate_up_proj", "down_proj")

    def __init__(
        self,
        experts: nn.Module,
        *,
        scheme: Scheme | None = None,
        act_bits: tuple[int | str, int | str] = ("auto", "auto"),
        act_group: int | str = "auto",
        device: torch.device | str | None = None,
    ) -> None:
        scheme = scheme or Scheme()
        super().__init__(scheme.group_size)
        gate_up, down = (getattr(experts, name) for name in self.WEIGHTS)
        self.num_experts, self.hidden_dim, self.intermediate_dim = down.shape
        # expert parallelism makes `num_experts` that of one process
        self._all_experts = self.num_experts
        self.act_fn: Callable[[Tensor], Tensor] = cast("Any", experts).act_fn
        self.act_bits = tuple(policy.parse(bits) for bits in act_bits)
        self.act_group = policy.parse_group(act_group)
        self.declare("gate_up_proj", tuple(gate_up.shape), scheme.scale_dtype, device)
        self.declare("down_proj", tuple(down.shape), scheme.scale_dtype, device)
        # in a tuple, so that it is no submodule: it holds no weights, only knows how to use them
        self._skeleton = (_skeleton(experts),)
        self.train(experts.training)

    @classmethod
    def from_experts(
        cls,
        experts: nn.Module,
        *,
        scheme: Scheme | None = None,
        act_bits: tuple[int | str, int | str] = ("auto", "auto"),
    ) -> Self:
        """The quantized counterpart of dense `experts`, on the same device."""
        scheme = scheme or Scheme()
        module = cls(experts, scheme=scheme, act_bits=act_bits, device="meta")
        for name in cls.WEIGHTS:
            module.assign_quantized(name, getattr(experts, name), scheme)
        return module

    def forward(self, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Mixes the experts.

        Args:
            hidden: tokens, `[T, H]`.
            chosen: the experts of each token, `[T, top_k]` integers; a number past the
                last expert means that another process computes this one.
            weights: what each of them counts, `[T, top_k]`.

        Returns:
            `[T, H]` in the type of `hidden`.
        """
        tokens, top_k = chosen.shape
        # as few small kernels as possible: for few tokens they would take longer than the products
        expert, order = chosen.reshape(-1).sort(stable=True)
        experts, _ = self.rows("gate_up_proj")
        numbers = torch.arange(experts, device=expert.device, dtype=expert.dtype)
        ends = torch.searchsorted(expert, numbers, right=True, out_int32=True)
        gate, up = self._grouped(hidden[order // top_k], ends, 0).chunk(2, dim=-1)
        out = self._grouped(self.act_fn(gate) * up, ends, 1)
        if experts < self._all_experts:
            # rows past the last expert of this process hold no result
            out = out.where((expert < experts).unsqueeze(-1), 0)
        out = torch.empty_like(out).index_copy_(0, order, out).view(tokens, top_k, -1)
        return (out * weights.unsqueeze(-1)).sum(dim=1).to(hidden.dtype)

    def _grouped(self, x: Tensor, ends: Tensor, index: int) -> Tensor:
        name = self.WEIGHTS[index]
        _, rows = self.rows(name)
        out: Tensor = torch.ops.flexq.grouped_linear(
            x,
            *self.packed(name),
            ends,
            rows,
            self.group(name),
            self.act_bits[index],
            act_group=self.act_group,
        )
        return out

    def to_dense(self, dtype: torch.dtype) -> nn.Module:
        """The module it was made for, with the dequantized weights."""
        dense = _skeleton(self._skeleton[0])
        for name in self.WEIGHTS:
            weight = nn.Parameter(self.dequantize(name, dtype), requires_grad=False)
            setattr(dense, name, weight)
        return dense.train(self.training)

    def extra_repr(self) -> str:
        """Sizes and settings, as `print(model)` shows them."""
        return (
            f"num_experts={self.num_experts}, hidden_dim={self.hidden_dim}, "
            f"intermediate_dim={self.intermediate_dim}, group_size={self.group_size or 'row'}"
        )


def _skeleton(experts: nn.Module) -> nn.Module:
    """A copy of a module whose parameters have no memory."""
    skeleton = copy.copy(experts)
    skeleton._parameters = {
        name: None if p is None else nn.Parameter(p.detach().to("meta"), requires_grad=False)
        for name, p in experts._parameters.items()
    }
    return skeleton
