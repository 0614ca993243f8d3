"""What every module on packed weights shares: two parameters and the order they are in."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from flexq.torch import cpu, cuda
from flexq.torch.layout import Scheme, groups, row_bytes


class PackedWeight(nn.Module):
    """Packed weights by name, each a pair of parameters `{name}_packed` and `{name}_scale`.

    On the CPU they are in canonical order, as in a file. On a GPU `prepare` replaces
    them by the order its kernels read, in the same memory; a state dict holds the
    canonical bytes on every device, and converting the module to another
    floating-point type leaves the scales as they are.
    """

    # transformers: in tensor parallel runs, compute on plain tensors
    _hf_quantized_needs_local_tp = True

    def __init__(self, group_size: int) -> None:
        super().__init__()
        self.group_size = group_size
        # shape [..., N, K] of every weight in canonical order, None while it is in that order
        self._reordered: dict[str, tuple[int, ...]] = {}
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
        """Sets a weight of `columns` columns to tensors in canonical order.

        Parameters are shared with whoever else holds them.
        """
        self._columns[name] = columns
        self._reordered.pop(name, None)
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
        """The tensors of a weight, in whichever order they are."""
        return getattr(self, f"{name}_packed"), getattr(self, f"{name}_scale")

    def rows(self, name: str) -> tuple[int, ...]:
        """The dimensions of a weight before its columns: `(N,)` or `(E, N)`."""
        shape = self._reordered.get(name)
        return shape[:-1] if shape else tuple(self.packed(name)[0].shape[:-1])

    def columns(self, name: str) -> int:
        """K of a weight; of all of it where processes share it."""
        return self._columns[name]

    def count(self, name: str) -> int:
        """The number of weights in a weight tensor."""
        return torch.Size(self.rows(name)).numel() * self._columns[name]

    def canonical(self, name: str) -> tuple[Tensor, Tensor]:
        """The tensors of a weight in canonical order; copies where they were reordered."""
        packed, scale = self.packed(name)
        shape = self._reordered.get(name)
        return cuda.to_canonical(packed, scale, shape, self.group_size) if shape else (packed, scale)

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

    def prepare(self) -> Self:
        """Puts weights that lie on a GPU into device order. Does nothing where they are."""
        for name in self._columns:
            packed, scale = (_local(tensor) for tensor in self.packed(name))
            if packed.is_cuda and name not in self._reordered:
                rows = tuple(packed.shape[:-1])
                shape = (*rows, _local_columns(self._columns[name], packed, scale, self.group_size))
                reordered = cuda.to_device_order(packed, scale, shape, self.group_size)
                self.assign(name, *reordered, shape[-1])
                self._reordered[name] = shape
        return self

    def _restore(self) -> None:
        for name in list(self._reordered):
            self.assign(name, *self.canonical(name), self._columns[name])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        was_prepared = bool(self._reordered)
        self._restore()
        scales = {name: self.packed(name)[1] for name in self._columns}
        super()._apply(fn, recurse)
        for name, scale in scales.items():
            moved = self.packed(name)[1]
            if moved.dtype != scale.dtype:
                exact = scale.detach().to(moved.device)
                setattr(self, f"{name}_scale", nn.Parameter(exact, requires_grad=False))
        return self.prepare() if was_prepared else self

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)  # type: ignore[no-untyped-call]
        for name in self._reordered:
            destination[f"{prefix}{name}_packed"], destination[f"{prefix}{name}_scale"] = (
                self.canonical(name)
            )

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        was_prepared = bool(self._reordered)
        self._restore()
        super()._load_from_state_dict(*args, **kwargs)  # type: ignore[no-untyped-call]
        if was_prepared:
            self.prepare()


def _parameter(tensor: Tensor) -> nn.Parameter:
    return tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False)


def _local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that tensor parallelism may have split."""
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def _local_columns(columns: int, packed: Tensor, scale: Tensor, group: int) -> int:
    """Columns of a part: all of them unless the packed rows are shorter than a whole one."""
    return columns if packed.shape[-1] == row_bytes(columns) else packed.shape[-1] * 8 // 6


def prepare(model: nn.Module) -> nn.Module:
    """Readies every flexq module inside `model` for calls that CUDA graphs may capture.

    Weights on a GPU go into device order and the kernels of that GPU are loaded, so
    that no later call allocates workspace, loads code or waits for the device.
    """
    for module in model.modules():
        if isinstance(module, PackedWeight):
            module.prepare()
    return model
