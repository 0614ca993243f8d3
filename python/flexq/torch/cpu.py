"""Operators on the CPU: tensors checked, then handed to the native module as addresses."""

import torch
from torch import Tensor

from flexq import _flexq
from flexq.torch import policy
from flexq.torch.layout import PAIR, SCALE_DTYPES, groups, row_bytes

# the numbers under which the native module knows the types
DTYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2}
SCALE_NUMBERS = {torch.float16: 0, torch.bfloat16: 1, PAIR: 3}


def check_weight(packed: Tensor, scale: Tensor, rows: int, columns: int, group: int) -> None:
    """Raises unless `packed` and `scale` are a canonical weight of `rows x columns`."""
    expected = (rows * row_bytes(columns), rows * groups(columns, group))
    found = (packed.numel(), scale.numel())
    if packed.dim() < 2:
        raise ValueError("a weight in device order on the CPU: move the module, not its tensors")
    if found != expected or packed.shape[-1] != row_bytes(columns):
        raise ValueError(
            f"weight of {rows} x {columns} in groups of {group or columns}: expected "
            f"{expected[0]} packed bytes and {expected[1]} scales, found packed "
            f"{tuple(packed.shape)} and scale {tuple(scale.shape)}; of a product, columns are "
            "those of x"
        )
    if packed.dtype != torch.uint8 or scale.dtype not in SCALE_DTYPES.values():
        raise TypeError(
            f"expected packed uint8 and scale float16, bfloat16 or uint16, found {packed.dtype} "
            f"and {scale.dtype}"
        )
    if not (packed.is_contiguous() and scale.is_contiguous()):
        raise ValueError("packed and scale must be contiguous")


def dtype_number(dtype: torch.dtype) -> int:
    """The native module's number of a floating-point type."""
    if dtype not in DTYPES:
        raise TypeError(f"expected float16, bfloat16 or float32, found {dtype}")
    return DTYPES[dtype]


def _weight(
    packed: Tensor, scale: Tensor, rows: int, columns: int, group: int
) -> tuple[int, int, int, int, int, int]:
    check_weight(packed, scale, rows, columns, group)
    return packed.data_ptr(), scale.data_ptr(), SCALE_NUMBERS[scale.dtype], rows, columns, group


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
    if out.shape != (*x.shape[:-1], out_features) or not out.is_contiguous():
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
    x = x.contiguous()
    columns = x.shape[-1]
    rows = x.numel() // columns if columns else 0
    _flexq.cpu_linear(
        (x.data_ptr(), dtype_number(x.dtype), rows),
        _weight(packed, scale, out_features, columns, group),
        *policy.resolve(act_bits, act_group, rows, "cpu"),
        (out.data_ptr(), dtype_number(out.dtype)),
        torch.get_num_threads(),
    )
    if bias is not None:
        out += bias


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
    """Rows of x times their expert's weight.

    Args:
        x: `[S, K]`, sorted by expert.
        packed: `[E, N, row_bytes]`.
        scale: `[E, N, groups]`.
        ends: `[E]` integers; expert `e` owns the rows from `ends[e - 1]` to `ends[e]`.
        out_features: N.
        group: columns per scale.
        act_bits: see `flexq.torch.ops`.
        act_group: likewise.
    """
    out = x.new_empty((x.shape[0], out_features))
    start = 0
    for expert, end in enumerate(ends.tolist()):
        if end > start:
            linear_out(
                x[start:end],
                packed[expert],
                scale[expert],
                None,
                out_features,
                group,
                act_bits,
                out[start:end],
                act_group=act_group,
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
    indices = indices.to(torch.int64).contiguous()
    out = packed.new_empty((*indices.shape, columns), dtype=dtype)
    _flexq.cpu_embedding(
        (indices.data_ptr(), indices.numel()),
        _weight(packed, scale, rows, columns, group),
        (out.data_ptr(), dtype_number(dtype)),
        torch.get_num_threads(),
    )
    return out


def dequantize(
    packed: Tensor, scale: Tensor, rows: int, columns: int, group: int, dtype: torch.dtype
) -> Tensor:
    """The weight as `[rows, columns]` of `dtype`."""
    out = packed.new_empty((rows, columns), dtype=dtype)
    _flexq.cpu_dequantize(
        _weight(packed, scale, rows, columns, group),
        (out.data_ptr(), dtype_number(dtype)),
        torch.get_num_threads(),
    )
    return out


def quantize(
    weight: Tensor, group: int, scale_rule: str, scale_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Packed codes and scales of a weight `[..., N, K]`, leading dimensions kept."""
    weight = weight.detach().contiguous()
    *leading, columns = weight.shape
    packed = weight.new_empty((*leading, row_bytes(columns)), dtype=torch.uint8)
    scale = weight.new_empty((*leading, groups(columns, group)), dtype=scale_dtype)
    rows = packed.numel() // packed.shape[-1] if packed.numel() else 0
    _flexq.cpu_quantize(
        (weight.data_ptr(), dtype_number(weight.dtype)),
        (packed.data_ptr(), scale.data_ptr(), SCALE_NUMBERS[scale_dtype], rows, columns, group),
        scale_rule,
        torch.get_num_threads(),
    )
    return packed, scale
