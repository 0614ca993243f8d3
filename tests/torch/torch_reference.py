"""What the torch operators must compute, in plain torch and float64."""

import torch


def codes(packed: torch.Tensor, columns: int) -> torch.Tensor:
    """Codes -32..31, `[..., columns]` int32, of canonical bytes `[..., row_bytes]`."""
    bits = (packed.to(torch.int32).unsqueeze(-1) >> torch.arange(8)) & 1
    stream = bits.flatten(-2)[..., : columns * 6]
    values = stream.unflatten(-1, (columns, 6)) << torch.arange(6)
    return values.sum(-1) - 32


def spread(scale: torch.Tensor, columns: int, group: int) -> torch.Tensor:
    """Scales `[..., groups]` repeated over their columns, float32 `[..., columns]`."""
    width = group or max(columns, 1)
    return scale.float().repeat_interleave(width, dim=-1)[..., :columns]


def dequantize(packed: torch.Tensor, scale: torch.Tensor, columns: int, group: int) -> torch.Tensor:
    """Exact weights in float32, `[..., columns]`."""
    return codes(packed, columns).float() * spread(scale, columns, group)


def quantize_activations(x: torch.Tensor, bits: int, width: int = 128) -> torch.Tensor:
    """Rows after symmetric quantization per `width` columns, in float64."""
    limit = 2 ** (bits - 1) - 1
    parts = []
    for part in x.float().split(width, dim=-1):
        scale = part.abs().amax(-1, keepdim=True) / limit
        q = torch.where(scale == 0, 0, part / scale).round().clamp(-limit, limit)
        parts.append(q.double() * scale.double())
    return torch.cat(parts, dim=-1)


def linear(
    x: torch.Tensor, packed: torch.Tensor, scale: torch.Tensor, group: int, act_bits: int = 16
) -> torch.Tensor:
    """`x @ W.T` in float64."""
    rows = x.double() if act_bits == 16 else quantize_activations(x, act_bits)
    return rows @ dequantize(packed, scale, x.shape[-1], group).double().T
