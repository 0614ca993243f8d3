"""What every module on packed weights shares: parameters for codes and scales."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from flexq.torch import cpu
from flexq.torch.layout import Scheme, groups, row_bytes


class PackedWeight(nn.Module):
    """Packed weights by name, each a pair of parameters `{name}_packed` and `{name}_scale`.

    They hold the bytes of a file. Converting the module to another floating-point type
    leaves the scales as they are.
    """

    # transformers: in tensor parallel runs, compute on plain tensors
    _hf_quantized_needs_local_tp = True

    def __init__(self, group_size: int) -> None:
        super().__init__()
        self.group_size = group_size
        self._columns: dict[str, int] = {}

    def declare(
        self,
        name: str,
        shape: tuple[int, ...],
        scale_dtype: torch.dtype = torch.float16,
        device: torch.device | str | None = None,
    ) -> None:
        """Adds uninitialized parameters for a weight of `shape` `[..., N, K]`."""
        *rows, columns = shape
        packed = torch.empty((*rows, row_bytes(columns)), dtype=torch.uint8, device=device)
        scale = torch.empty(
            (*rows, groups(columns, self.group_size)), dtype=scale_dtype, device=device
        )
        self.assign(name, packed, scale, columns)

    def assign(self, name: str, packed: Tensor, scale: Tensor, columns: int) -> None:
        """Sets a weight of `columns` columns; parameters may belong to other modules too."""
        self._columns[name] = columns
        setattr(self, f"{name}_packed", _parameter(packed))
        setattr(self, f"{name}_scale", _parameter(scale))

    def assign_quantized(self, name: str, weight: Tensor, scheme: Scheme) -> None:
        """Quantizes `weight [..., N, K]` and keeps the result on the device of `weight`."""
        packed, scale = cpu.quantize(
            weight.cpu(), scheme.group_size, scheme.scale_rule, scheme.scale_dtype
        )
        if self._is_waiting(name):
            del self._parameters[name]
        self.assign(name, packed.to(weight.device), scale.to(weight.device), weight.shape[-1])

    def await_dense(self, name: str, weight: Tensor) -> None:
        """Adds a dense parameter that `assign_quantized` will replace, for loaders to find."""
        self.register_parameter(name, nn.Parameter(weight.detach(), requires_grad=False))

    def _is_waiting(self, name: str) -> bool:
        dense = self._parameters.get(name)
        return dense is not None and dense.numel() > 0

    def names(self) -> tuple[str, ...]:
        """The names of the weights."""
        return tuple(self._columns)

    def packed(self, name: str) -> tuple[Tensor, Tensor]:
        """The codes and the scales of a weight."""
        return getattr(self, f"{name}_packed"), getattr(self, f"{name}_scale")

    def rows(self, name: str) -> tuple[int, ...]:
        """The dimensions of a weight before its columns: `(N,)` or `(E, N)`."""
        return tuple(self.packed(name)[0].shape[:-1])

    def columns(self, name: str) -> int:
        """K of a weight; of all of it where processes share it."""
        return self._columns[name]

    def count(self, name: str) -> int:
        """The number of weights in a weight tensor."""
        return torch.Size(self.rows(name)).numel() * self._columns[name]

    def dequantize(self, name: str, dtype: torch.dtype) -> Tensor:
        """A weight as a dense tensor `[..., N, K]`."""
        rows, columns = self.rows(name), self._columns[name]
        count = torch.Size(rows).numel()
        dense: Tensor = torch.ops.flexq.dequantize(
            *self.packed(name), count, columns, self.group_size, dtype
        )
        return dense.view(*rows, columns)

    def to_dense(self, dtype: torch.dtype) -> nn.Module:
        """The dense module with the dequantized weights."""
        raise NotImplementedError

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        scales = {name: self.packed(name)[1].detach() for name in self._columns}
        super()._apply(fn, recurse)
        for name, scale in scales.items():
            moved = self.packed(name)[1]
            if moved.dtype != scale.dtype:
                moved.data = scale.to(moved.device)
        return self


def _parameter(tensor: Tensor) -> nn.Parameter:
    return tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False)
