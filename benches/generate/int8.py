"""8-bit weights and activations on cuBLAS's integer product: as little as W8A8 takes in torch."""

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST_ROWS = 32
"""Of cuBLAS's product; fewer are filled up with zeros, which costs nothing beside the weight."""


class Int8Linear(nn.Module):
    """`x @ W.T` with a scale for each row of x and of W."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scale = weight.abs().amax(1, keepdim=True) / 127
        codes = torch.round(weight / scale).clamp(-127, 127)
        self.register_buffer("weight", codes.to(torch.int8))
        self.register_buffer("scale", scale.view(-1))

    def forward(self, x: Tensor) -> Tensor:
        """Takes x `[..., K]`; the result `[..., N]` likewise."""
        rows = x.reshape(-1, x.shape[-1])
        scale = (rows.abs().amax(1, keepdim=True).float() / 127).clamp(min=1e-12)
        codes = torch.round(rows / scale).to(torch.int8)
        missing = max(LEAST_ROWS - len(codes), 0)
        sums = torch._int_mm(functional.pad(codes, (0, 0, 0, missing)), self.weight.t())
        out = sums[: len(codes)] * scale * self.scale
        return out.to(x.dtype).view(*x.shape[:-1], -1)
