"""The operators `torch.ops.flexq.*`: products and lookups on packed weights.

A weight is two tensors as they are in a file: `packed` (uint8) `[N, ceil(6 K / 8)]` and
`scale` (float16 or bfloat16) `[N, groups]`, or `[E, N, ...]` for a stack of experts.
On the CPU the kernels of flexq's core multiply them. On an NVIDIA GPU flexq's kernels do,
once `flexq.torch.prepare` has put them into device order, where both tensors are flat.
Anywhere else, and for weights that were not prepared, plain torch does.

`group` is the number of columns per scale, 0 for a whole row; `act_bits` is 16,
8, 6, or 0 to let `flexq.torch.policy` decide per call; `act_group` is the number of
columns that share a scale of quantized activations: 128, 0 for a whole row, or -1 to let
`flexq.torch.policy` choose.
"""

import torch
from torch import Tensor
from torch.library import Library

from flexq.torch import cpu, cuda, portable

_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)

# unloading the library would remove the operators, so it lives as long as the module
_library = Library("flexq", "DEF")

_SCHEMAS = (
    "linear(Tensor x, Tensor packed, Tensor scale, Tensor? bias, SymInt out_features, int group,"
    " int act_bits, *, int act_group=-1) -> Tensor",
    "linear_out(Tensor x, Tensor packed, Tensor scale, Tensor? bias, SymInt out_features,"
    " int group, int act_bits, Tensor(a!) out, *, int act_group=-1) -> ()",
    "grouped_linear(Tensor x, Tensor packed, Tensor scale, Tensor ends, SymInt out_features,"
    " int group, int act_bits, *, int act_group=-1) -> Tensor",
    "grouped_linear_backward(Tensor grad, Tensor packed, Tensor scale, Tensor ends,"
    " SymInt in_features, int group) -> Tensor",
    "embedding(Tensor indices, Tensor packed, Tensor scale, SymInt rows, SymInt columns,"
    " int group, ScalarType dtype) -> Tensor",
    "dequantize(Tensor packed, Tensor scale, SymInt rows, SymInt columns, int group,"
    " ScalarType dtype) -> Tensor",
)

for _schema in _SCHEMAS:
    _library.define(_schema, tags=_TAGS)

for _name in ("linear", "linear_out", "grouped_linear", "embedding", "dequantize"):
    _library.impl(_name, getattr(cpu, _name), "CPU")
    _library.impl(_name, getattr(cuda, _name), "CUDA")
    _library.impl(_name, getattr(portable, _name), "CompositeExplicitAutograd")


@torch.library.register_fake("flexq::linear", lib=_library)
def _linear_fake(
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
    cuda.follow_inductor()
    return x.new_empty((*x.shape[:-1], out_features))


@torch.library.register_fake("flexq::linear_out", lib=_library)
def _linear_out_fake(
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
    cuda.follow_inductor()


@torch.library.register_fake("flexq::grouped_linear", lib=_library)
def _grouped_linear_fake(
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
    cuda.follow_inductor()
    return x.new_empty((x.shape[0], out_features))


@torch.library.register_fake("flexq::grouped_linear_backward", lib=_library)
def _grouped_linear_backward_fake(
    grad: Tensor, packed: Tensor, scale: Tensor, ends: Tensor, in_features: int, group: int
) -> Tensor:
    return grad.new_empty((grad.shape[0], in_features))


@torch.library.register_fake("flexq::embedding", lib=_library)
def _embedding_fake(
    indices: Tensor,
    packed: Tensor,
    scale: Tensor,
    rows: int,
    columns: int,
    group: int,
    dtype: torch.dtype,
) -> Tensor:
    return packed.new_empty((*indices.shape, columns), dtype=dtype)


@torch.library.register_fake("flexq::dequantize", lib=_library)
def _dequantize_fake(
    packed: Tensor, scale: Tensor, rows: int, columns: int, group: int, dtype: torch.dtype
) -> Tensor:
    return packed.new_empty((rows, columns), dtype=dtype)


def _save_linear(ctx, inputs, keyword_only_inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, packed, scale, _bias, ctx.out_features, ctx.group, _act_bits = inputs
    ctx.in_features = x.shape[-1]
    ctx.save_for_backward(packed, scale)


def _linear_backward(ctx, grad):  # type: ignore[no-untyped-def]
    """Gradients of x and bias; quantized weights have none."""
    packed, scale = ctx.saved_tensors
    grad_x = grad_bias = None
    if ctx.needs_input_grad[0]:
        weight = torch.ops.flexq.dequantize(
            packed, scale, ctx.out_features, ctx.in_features, ctx.group, grad.dtype
        )
        grad_x = grad @ weight
    if ctx.needs_input_grad[3]:
        grad_bias = grad.flatten(0, -2).sum(0)
    return grad_x, None, None, grad_bias, None, None, None


torch.library.register_autograd(
    "flexq::linear", _linear_backward, setup_context=_save_linear, lib=_library
)


def _save_grouped(ctx, inputs, keyword_only_inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, packed, scale, ends, _out_features, ctx.group, _act_bits = inputs
    ctx.in_features = x.shape[-1]
    ctx.save_for_backward(packed, scale, ends)


def _grouped_backward(ctx, grad):  # type: ignore[no-untyped-def]
    packed, scale, ends = ctx.saved_tensors
    grad_x = torch.ops.flexq.grouped_linear_backward(
        grad, packed, scale, ends, ctx.in_features, ctx.group
    )
    return grad_x, None, None, None, None, None, None


torch.library.register_autograd(
    "flexq::grouped_linear", _grouped_backward, setup_context=_save_grouped, lib=_library
)


def _grouped_linear_backward(
    grad: Tensor, packed: Tensor, scale: Tensor, ends: Tensor, in_features: int, group: int
) -> Tensor:
    """`grad [S, N]` times each expert's dequantized weight: `[S, K]`."""
    experts, rows = ends.numel(), grad.shape[1]
    if packed.dim() == 1:
        packed, scale = cuda.to_canonical(packed, scale, (experts, rows, in_features), group)
    result = grad.new_empty((grad.shape[0], in_features))
    weights = torch.ops.flexq.dequantize(
        packed, scale, experts * rows, in_features, group, grad.dtype
    ).view(experts, rows, in_features)
    start = 0
    for weight, end in zip(weights, ends.tolist(), strict=True):
        torch.mm(grad[start:end], weight, out=result[start:end])
        start = end
    return result


_library.impl("grouped_linear_backward", _grouped_linear_backward, "CompositeExplicitAutograd")
