"""Operators on NVIDIA GPUs: packed weights multiplied by flexq's own kernels.

Kernels read weights in device order, flat tensors that `to_device_order` makes. Weights in
canonical order, and float32 activations, go through `flexq.torch.portable` instead.
"""

import os
import sys
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from flexq import _flexq
from flexq.torch import policy, portable, workspace
from flexq.torch.cpu import dtype_number
from flexq.torch.layout import groups, row_bytes

_Weight = tuple[int, int, int, int, int, int]

TILE_ROWS = 64
"""Rows whose codes belong together in device order."""


def follow_inductor() -> None:
    """Lets kernels of Inductor that are launched as dependents follow ours.

    They rely on every kernel to have waited for those before it when it lets the next one start,
    which costs our products up to a twelfth where it is not needed. Asked for before the first
    product of a compiled model, and never taken back.
    """
    config = sys.modules.get("torch._inductor.config")
    if config is None:
        wanted = os.environ.get("TORCHINDUCTOR_ENABLE_PDL") == "1"
    else:
        wanted = getattr(config.triton, "enable_pdl", False)
    if wanted:
        _flexq.cuda_trigger_late(True)


def _stream(packed: Tensor, x: Tensor) -> tuple[int, int]:
    """Ordinal and raw stream to launch on, of the GPU that holds a weight and its input."""
    ordinal = packed.get_device()
    if x.get_device() != ordinal:
        raise ValueError(
            f"expected one GPU, found x on {x.device} and its weight on {packed.device}"
        )
    # without a Stream object, which would be most of what a call costs; Triton does the same
    return ordinal, torch._C._cuda_getCurrentRawStream(ordinal)


@cache
def _check_sizes(
    codes: int, scales: int, rows: int, columns: int, group: int, experts: int
) -> None:
    """Raises unless weights in device order have so many bytes of codes, and so many scales."""
    expected = tuple(experts * size for size in _flexq.cuda_sizes(rows, columns, group))
    if (codes, scales) != expected:
        of = f"{experts} x " if experts != 1 else ""
        raise ValueError(
            f"weight of {of}{rows} x {columns} in device order: expected {expected[0]} bytes of "
            f"codes and {expected[1]} scales, found {codes} and {scales}; columns are those of x"
        )


def _weight(
    codes: Tensor, scales: Tensor, rows: int, columns: int, group: int, experts: int = 1
) -> _Weight:
    """A weight, or a stack of experts', as kernels take it: they trust these sizes."""
    _check_sizes(codes.numel(), scales.numel(), rows, columns, group, experts)
    kind = dtype_number(scales.dtype)
    return codes.data_ptr(), scales.data_ptr(), kind, rows, columns, group


@cache
def _workspace_bytes(
    ordinal: int,
    shape: tuple[int, int, int],
    rows: int,
    x_type: int,
    act_bits: int,
    per_row: bool,
    experts: int | None = None,
) -> int:
    # the addresses do not matter for the size
    size, _ = _flexq.cuda_workspace(
        ordinal, (0, 0, 0, *shape), rows, x_type, act_bits, per_row, experts
    )
    return size


def reserve_for(device: torch.device, rows: int, columns: int, group: int, most: int) -> None:
    """Makes the workspace large enough for products of up to `most` rows with such a weight."""
    ordinal = device.index if device.index is not None else torch.cuda.current_device()
    shape = (rows, columns, group)
    for act_bits, per_row in ((16, False), (8, False), (8, True)):
        for x_rows in (1, 16, 64, most):
            size = _workspace_bytes(ordinal, shape, x_rows, 1, act_bits, per_row)
            workspace.reserve(device, size)


def to_device_order(
    packed: Tensor, scale: Tensor, shape: tuple[int, ...], group: int
) -> tuple[Tensor, Tensor]:
    """Codes and scales of a weight of `shape` `[..., N, K]`, flat, as kernels read them."""
    *stack, rows, columns = shape
    count = torch.Size(stack).numel()
    code_bytes, scale_count = _flexq.cuda_sizes(rows, columns, group)
    codes = packed.new_zeros(count * code_bytes)
    scales = scale.new_zeros(count * scale_count)
    ordinal, stream = _stream(codes, packed)
    sources = packed.reshape(count, -1), scale.reshape(count, -1)
    for i in range(count):
        part = _part(codes, i, code_bytes), _part(scales, i, scale_count)
        target = _weight(*part, rows, columns, group)
        source = sources[0][i].data_ptr(), sources[1][i].data_ptr()
        _flexq.cuda_repack(ordinal, stream, source, target)
    return codes, scales


def _part(tensor: Tensor, index: int, size: int) -> Tensor:
    return tensor[index * size : (index + 1) * size]


def to_canonical(
    codes: Tensor, scales: Tensor, shape: tuple[int, ...], group: int
) -> tuple[Tensor, Tensor]:
    """The inverse of `to_device_order`."""
    *stack, rows, columns = shape
    count = torch.Size(stack).numel()
    code_bytes, scale_count = _flexq.cuda_sizes(rows, columns, group)
    packed = codes.new_empty((*stack, rows, row_bytes(columns)))
    scale = scales.new_empty((*stack, rows, groups(columns, group)))
    targets = packed.view(count, -1), scale.view(count, -1)
    ordinal, stream = _stream(codes, scales)
    for i in range(count):
        part = _part(codes, i, code_bytes), _part(scales, i, scale_count)
        source = _weight(*part, rows, columns, group)
        target = targets[0][i].data_ptr(), targets[1][i].data_ptr()
        _flexq.cuda_restore(ordinal, stream, source, target)
    return packed, scale


def concatenate(weights: list[tuple[Tensor, Tensor]], rows: list[int]) -> tuple[Tensor, Tensor]:
    """Weights in device order as one: `rows`, multiples of `TILE_ROWS`, behind each other.

    Codes lie row tile by row tile, scales of all rows side by side.
    """
    scales = [scale.view(-1, count) for (_, scale), count in zip(weights, rows, strict=True)]
    return torch.cat([codes for codes, _ in weights]), torch.cat(scales, dim=1).flatten()


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
    """`out = x @ W.T + bias`: x `[..., K]`, W `[N, K]`, bias `[N]`, out `[..., N]`."""
    if not out.is_contiguous() or out.shape != (*x.shape[:-1], out_features):
        raise ValueError(
            f"out: expected contiguous {(*x.shape[:-1], out_features)}, found {tuple(out.shape)}"
        )
    _linear_into(x, packed, scale, bias, out_features, group, act_bits, act_group, out)


def _linear_into(
    x: Tensor,
    packed: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    out_features: int,
    group: int,
    act_bits: int,
    act_group: int,
    out: Tensor,
) -> None:
    """`linear_out` with an `out` that is known to fit."""
    if packed.dim() > 1:
        portable.linear_out(
            x, packed, scale, bias, out_features, group, act_bits, out, act_group=act_group
        )
        return
    columns = x.shape[-1]
    rows = x.numel() // columns if columns else 0
    if x.dtype == torch.float32:
        if act_bits not in (policy.AUTO, 16):
            x = portable.quantize_activations(x, act_bits, act_group)
        weight = dequantize(packed, scale, out_features, columns, group, x.dtype)
        out.copy_(functional.linear(x, weight, bias))
        return
    x = x.contiguous()
    bits, per_row = policy.resolve(act_bits, act_group, rows, "cuda")
    (ordinal, stream), x_type = _stream(packed, x), dtype_number(x.dtype)
    size = _workspace_bytes(ordinal, (out_features, columns, group), rows, x_type, bits, per_row)
    with workspace.lock:
        _flexq.cuda_linear(
            ordinal,
            stream,
            _weight(packed, scale, out_features, columns, group),
            (x.data_ptr(), x_type, rows, columns),
            None if bias is None else (bias.data_ptr(), dtype_number(bias.dtype)),
            (out.data_ptr(), dtype_number(out.dtype)),
            bits,
            per_row,
            workspace.of(ordinal, stream, size),
        )


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
    """`x @ W.T + bias` in the type of x; see `linear_out`."""
    out = x.new_empty((*x.shape[:-1], out_features))
    _linear_into(x, packed, scale, bias, out_features, group, act_bits, act_group, out)
    return out


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
    """Rows of x, sorted by expert, times their expert's weight, without asking the host."""
    experts, (rows, columns) = ends.numel(), x.shape
    if packed.dim() == 1 and x.dtype == torch.float32:
        packed, scale = to_canonical(packed, scale, (experts, out_features, columns), group)
    if packed.dim() > 1:
        return portable.grouped_linear(
            x, packed, scale, ends, out_features, group, act_bits, act_group=act_group
        )
    x, ends = x.contiguous(), ends.to(torch.int32)
    bits, per_row = policy.resolve(act_bits, act_group, rows, "cuda")
    out = x.new_empty((rows, out_features))
    (ordinal, stream), x_type = _stream(packed, x), dtype_number(x.dtype)
    size = _workspace_bytes(
        ordinal, (out_features, columns, group), rows, x_type, bits, per_row, experts
    )
    with workspace.lock:
        _flexq.cuda_grouped_linear(
            ordinal,
            stream,
            _weight(packed, scale, out_features, columns, group, experts),
            (ends.data_ptr(), experts),
            (x.data_ptr(), x_type, rows, columns),
            (out.data_ptr(), dtype_number(out.dtype)),
            bits,
            per_row,
            workspace.of(ordinal, stream, size),
        )
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
    if packed.dim() > 1:
        return portable.embedding(indices, packed, scale, rows, columns, group, dtype)
    indices = indices.to(torch.int64).contiguous()
    out = packed.new_empty((*indices.shape, columns), dtype=dtype)
    _flexq.cuda_embedding(
        *_stream(packed, indices),
        _weight(packed, scale, rows, columns, group),
        (indices.data_ptr(), indices.numel()),
        (out.data_ptr(), dtype_number(dtype)),
    )
    return out


def dequantize(
    packed: Tensor, scale: Tensor, rows: int, columns: int, group: int, dtype: torch.dtype
) -> Tensor:
    """The weight as `[rows, columns]` of `dtype`; in device order, one matrix only."""
    if packed.dim() > 1:
        return portable.dequantize(packed, scale, rows, columns, group, dtype)
    out = packed.new_empty((rows, columns), dtype=dtype)
    _flexq.cuda_dequantize(
        *_stream(packed, scale),
        _weight(packed, scale, rows, columns, group),
        (out.data_ptr(), dtype_number(dtype)),
    )
    return out
