"""What every module on packed weights shares: parameters for codes and scales."""

from collections.abc import Callable
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from flexq.torch import cpu, cuda
from flexq.torch.layout import GROUP_SIZES, PAIR, Scheme, groups, row_bytes, unpair


class PackedWeight(nn.Module):
    """Packed weights by name, each a pair of parameters `{name}_packed` and `{name}_scale`.

    They hold the bytes of a file. `prepare` puts those on an NVIDIA GPU into the order its
    kernels read, in the same memory; a state dict has the bytes of a file all the same.
    Converting the module to another floating-point type leaves the scales as they are.
    """

    # transformers: in tensor parallel runs, compute on plain tensors
    _hf_quantized_needs_local_tp = True

    def __init__(self, group_size: int) -> None:
        super().__init__()
        self.group_size = group_size
        self._columns: dict[str, int] = {}
        # shapes [..., N, K] of the weights that are in device order
        self._reordered: dict[str, tuple[int, ...]] = {}
        # words of two scales, as in a file, of those whose scales a GPU has one by one
        self._words: dict[str, Tensor] = {}

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
        self._reordered.pop(name, None)
        self._words.pop(name, None)
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
        shape = self._reordered.get(name)
        return shape[:-1] if shape else tuple(self.packed(name)[0].shape[:-1])

    def group(self, name: str) -> int:
        """Columns per scale of a weight as its tensors are now: half a group if unpaired."""
        return self.group_size // 2 if name in self._words else self.group_size

    def columns(self, name: str) -> int:
        """K of a weight; of all of it where processes share it."""
        return self._columns[name]

    def count(self, name: str) -> int:
        """The number of weights in a weight tensor."""
        return torch.Size(self.rows(name)).numel() * self._columns[name]

    def canonical(self, name: str) -> tuple[Tensor, Tensor]:
        """The codes and the scales of a weight as in a file; copies if they were reordered."""
        packed, scale = self.packed(name)
        shape = self._reordered.get(name)
        if shape:
            packed, scale = cuda.to_canonical(packed, scale, shape, self.group(name))
            scale = self._words.get(name, scale)
        return packed, scale

    def dequantize(self, name: str, dtype: torch.dtype) -> Tensor:
        """A weight as a dense tensor `[..., N, K]`."""
        rows, columns = self.rows(name), self._columns[name]
        count = torch.Size(rows).numel()
        dense: Tensor = torch.ops.flexq.dequantize(
            *self.canonical(name), count, columns, self.group_size, dtype
        )
        return dense.view(*rows, columns)

    def to_dense(self, dtype: torch.dtype) -> nn.Module:
        """The dense module with the dequantized weights."""
        raise NotImplementedError

    def prepare(self, rows: int = 2048) -> Self:
        """Puts weights that lie on an NVIDIA GPU into device order; see `flexq.torch.prepare`."""
        for name in self._columns:
            packed, scale = self.packed(name)
            if not packed.is_cuda or name in self._reordered:
                continue
            if packed.dim() == 1:
                # the parameters belong to another module too, which was here first
                self._reordered[name], words = cast("Any", packed).flexq_shape
                if words is not None:
                    self._words[name] = words
                continue
            self._reorder(name, local(packed), local(scale), rows)
        return self

    def _reorder(self, name: str, codes: Tensor, scales: Tensor, rows: int) -> None:
        whole = codes.shape[-1] == row_bytes(self._columns[name])
        columns = self._columns[name] if whole else codes.shape[-1] * 8 // 6
        shape = (*codes.shape[:-1], columns)
        words, group = None, self.group_size
        if scales.dtype == PAIR:
            if group // 2 not in GROUP_SIZES:
                # no kernel of a GPU has scales of 16 columns
                return
            # a copy, since the parameter is about to get other memory
            words = scales.detach().clone()
            scales, group = unpair(words, columns, group)
        self.exchange(name, *cuda.to_device_order(codes, scales, shape, group))
        cast("Any", self.packed(name)[0]).flexq_shape = shape, words
        self._reordered[name] = shape
        if words is not None:
            self._words[name] = words
        cuda.reserve_for(codes.device, shape[-2], columns, group, rows)

    def _restore(self) -> None:
        for name in list(self._reordered):
            if self.packed(name)[0].dim() == 1:
                self.exchange(name, *self.canonical(name))
            self._reordered.pop(name, None)
            self._words.pop(name, None)

    def exchange(self, name: str, packed: Tensor, scale: Tensor) -> None:
        """Replaces the tensors of a weight, for every module that holds the same parameters."""
        old = self.packed(name)
        if local(old[0]) is not old[0]:
            # a part of a distributed tensor becomes a plain one
            self.assign(name, packed, scale, self._columns[name])
            return
        for parameter, tensor in zip(old, (packed, scale), strict=True):
            parameter.data = tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        was_prepared = bool(self._reordered)
        self._restore()
        scales = {name: self.packed(name)[1].detach() for name in self._columns}
        super()._apply(fn, recurse)
        for name, scale in scales.items():
            moved = self.packed(name)[1]
            if moved.dtype != scale.dtype:
                moved.data = scale.to(moved.device)
        return self.prepare() if was_prepared else self

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in self._reordered:
            packed, scale = self.canonical(name)
            destination[f"{prefix}{name}_packed"] = packed
            destination[f"{prefix}{name}_scale"] = scale

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        was_prepared = bool(self._reordered)
        self._restore()
        super()._load_from_state_dict(*args, **kwargs)
        if was_prepared:
            self.prepare()


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that tensor parallelism may have split."""
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def _parameter(tensor: Tensor) -> nn.Parameter:
    return tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False)
