"""Operators in plain torch, for tensors on any device without kernels of its own here.

Weights stay packed in memory. A product dequantizes the weight it needs, for the time of
the call, and leaves the multiplication to torch.
"""

import torch
from torch import Tensor
from torch.nn import functional

from flexq.torch import policy
from flexq.torch.layout import PAIR, unpair

CHUNK = 1 << 22
"""Weights that `dequantize` unpacks at a time, which bounds its temporary memory."""


def unpack(packed: Tensor, columns: int) -> Tensor:
    """Codes -32..31, int8 `[..., columns]`, of canonical bytes `[..., ceil(6 columns / 8)]`."""
    padded = functional.pad(packed, (0, -packed.shape[-1] % 3)).unflatten(-1, (-1, 3))
    first, second, third = padded.unbind(-1)
    codes = torch.stack(
        (
            first & 63,
            first >> 6 | (second & 15) << 2,
            second >> 4 | (third & 3) << 4,
            third >> 2,
        ),
        dim=-1,
    )
    return codes.flatten(-2)[..., :columns].to(torch.int8) - 32


def _dense(packed: Tensor, scale: Tensor, columns: int, group: int, dtype: torch.dtype) -> Tensor:
    if scale.dtype == PAIR:
        scale, group = unpair(scale, columns, group)
    width = group or max(columns, 1)
    scales = scale.float().repeat_interleave(width, dim=-1)[..., :columns]
    return (unpack(packed, columns).float() * scales).to(dtype)


def dequantize(
    packed: Tensor, scale: Tensor, rows: int, columns: int, group: int, dtype: torch.dtype
) -> Tensor:
    """The weight as `[rows, columns]` of `dtype`."""
    packed, scale = packed.reshape(rows, -1), scale.reshape(rows, -1)
    out = packed.new_empty((rows, columns), dtype=dtype)
    step = max(CHUNK // max(columns, 1), 1)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        out[part] = _dense(packed[part], scale[part], columns, group, dtype)
    return out


def quantize_activations(x: Tensor, bits: int, act_group: int = policy.COLUMNS) -> Tensor:
    """Rows rounded to `bits` bits, in the type of x; `act_group` as operators take it."""
    width = x.shape[-1] if act_group == policy.ROW else policy.COLUMNS
    limit = 2 ** (bits - 1) - 1
    parts = []
    for part in x.float().split(width, dim=-1):
        scale = part.abs().amax(-1, keepdim=True) / limit
        codes = torch.where(scale == 0, 0, part / scale).round().clamp(-limit, limit)
        parts.append(codes * scale)
    return torch.cat(parts, dim=-1).to(x.dtype)


def linear(
    x: Tensor,
    packed: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    out_features: int,
    group: int,
    act_bits: int,
    *,
    act_group: int = -1,
) -> Tensor:
    """`x @ W.T + bias`; `auto` leaves activations as they are, since nothing here gains by it."""
    if act_bits not in (policy.AUTO, 16):
        x = quantize_activations(x, act_bits, act_group)
    weight = dequantize(packed, scale, out_features, x.shape[-1], group, x.dtype)
    return functional.linear(x, weight, bias)


def linear_out(
    x: Tensor,
    packed: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    out_features: int,
    group: int,
    act_bits: int,
    out: Tensor,
    *,
    act_group: int = -1,
) -> None:
    """`linear` into `out`."""
    out.copy_(linear(x, packed, scale, bias, out_features, group, act_bits, act_group=act_group))


def grouped_linear(
    x: Tensor,
    packed: Tensor,
    scale: Tensor,
    ends: Tensor,
    out_features: int,
    group: int,
    act_bits: int,
    *,
    act_group: int = -1,
) -> Tensor:
    """Rows of x times their expert's weight, one expert after the other."""
    out = x.new_empty((x.shape[0], out_features))
    start = 0
    for expert, end in enumerate(ends.tolist()):
        if end > start:
            weight = packed[expert], scale[expert]
            rows = x[start:end]
            out[start:end] = linear(
                rows, *weight, None, out_features, group, act_bits, act_group=act_group
            )
        start = end
    return out


def embedding(
    indices: Tensor,
    packed: Tensor,
    scale: Tensor,
    rows: int,
    columns: int,
    group: int,
    dtype: torch.dtype,
) -> Tensor:
    """Rows `indices` of the weight `[rows, columns]`, dequantized to `dtype`."""
    indices = indices.long()
    return _dense(packed[indices], scale[indices], columns, group, dtype)
