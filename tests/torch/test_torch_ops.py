import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

import flexq  # noqa: E402
import torch_reference as reference  # noqa: E402
from flexq import _flexq  # noqa: E402
from flexq.torch import FlexQLinear, cpu, cuda, portable, prepare  # noqa: E402
from torch import nn  # noqa: E402

ops = torch.ops.flexq

# the largest error of an output, in units of the float type, for sums of a few hundred terms
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
DTYPES = sorted(TOLERANCE, key=str)


def weight(rows, columns, group=128, dtype=torch.float32, scale_dtype=torch.float16):
    dense = torch.randn(rows, columns).to(dtype)
    return cpu.quantize(dense, group, "absmax32s", scale_dtype)


def assert_close(found, expected, dtype):
    bound = TOLERANCE[dtype] * expected.abs().max().clamp(min=1)
    assert (found.double() - expected).abs().max() <= bound


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("act_bits", [16, 8, 6])
@pytest.mark.parametrize(
    ("rows", "columns", "group"), [(96, 256, 128), (33, 172, 64), (16, 384, 0), (8, 32, 256)]
)
def test_linear_is_the_product(dtype, act_bits, rows, columns, group):
    packed, scale = weight(rows, columns, group)
    bias = torch.randn(rows).to(dtype)
    for leading in [(1,), (3,), (2, 9)]:
        x = torch.randn(*leading, columns).to(dtype)
        y = ops.linear(x, packed, scale, bias, rows, group, act_bits)
        expected = reference.linear(x, packed, scale, group, act_bits) + bias.double()
        assert y.shape == (*leading, rows)
        assert y.dtype == dtype
        assert_close(y, expected, dtype)


def test_linear_takes_no_rows_and_strided_ones():
    packed, scale = weight(32, 128)
    assert ops.linear(torch.empty(0, 128), packed, scale, None, 32, 128, 16).shape == (0, 32)
    x = torch.randn(128, 5).T
    same = ops.linear(x.contiguous(), packed, scale, None, 32, 128, 16)
    assert torch.equal(ops.linear(x, packed, scale, None, 32, 128, 16), same)


def test_linear_out_writes_where_told():
    packed, scale = weight(32, 128)
    x = torch.randn(4, 128, dtype=torch.bfloat16)
    out = torch.full((4, 32), torch.nan, dtype=torch.float32)
    ops.linear_out(x, packed, scale, None, 32, 128, 16, out)
    assert_close(out, reference.linear(x, packed, scale, 128), torch.float32)
    with pytest.raises(ValueError, match=r"out: expected contiguous \(4, 32\), found \(4, 31\)"):
        ops.linear_out(x, packed, scale, None, 32, 128, 16, out[:, 1:])


def test_auto_is_exact_for_few_rows():
    packed, scale = weight(32, 128)
    for rows, act_bits in [(1, 16), (500, 8)]:
        x = torch.randn(rows, 128)
        auto = ops.linear(x, packed, scale, None, 32, 128, 0)
        assert torch.equal(auto, ops.linear(x, packed, scale, None, 32, 128, act_bits))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("group", [32, 128, 0])
def test_dequantize_and_embedding_are_exact(dtype, group):
    packed, scale = weight(40, 172, group)
    dense = reference.dequantize(packed, scale, 172, group).to(dtype)
    assert torch.equal(ops.dequantize(packed, scale, 40, 172, group, dtype), dense)
    indices = torch.tensor([[0, 39], [7, 7]])
    for kind in (torch.int64, torch.int32):
        found = ops.embedding(indices.to(kind), packed, scale, 40, 172, group, dtype)
        assert torch.equal(found, dense[indices])


@pytest.mark.parametrize("act_bits", [8, 6])
@pytest.mark.parametrize(("act_group", "width"), [(-1, 128), (128, 128), (0, 300)])
def test_scales_of_activations_are_per_columns_or_per_row(act_bits, act_group, width):
    packed, scale = weight(32, 300)
    x = torch.randn(5, 300) * torch.logspace(-1, 1, 300)
    exact = reference.dequantize(packed, scale, 300, 128).double()
    expected = reference.quantize_activations(x, act_bits, width) @ exact.T
    for place in (ops.linear, portable.linear):
        y = place(x, packed, scale, None, 32, 128, act_bits, act_group=act_group)
        torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-4)


def test_embedding_refuses_rows_that_are_not_there():
    packed, scale = weight(4, 128)
    for index in (4, -1):
        with pytest.raises(IndexError, match=f"row {index}: expected 0 <= row < 4"):
            ops.embedding(torch.tensor([index]), packed, scale, 4, 128, 128, torch.float32)


@pytest.mark.parametrize("rule", ["absmax31", "absmax32s", "mse"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_quantize_gives_the_bytes_of_the_numpy_interface(rule, dtype):
    dense = torch.randn(24, 300).to(dtype)
    bits = dense.view(torch.int16).numpy().view(np.uint16) if dtype.itemsize == 2 else dense.numpy()
    if dtype == torch.float16:
        bits = bits.view(np.float16)
    name = str(dtype).removeprefix("torch.")
    expected = flexq.quantize(bits, rule=rule, dtype=name)
    packed, scale = cpu.quantize(dense, 128, rule, torch.float16)
    assert np.array_equal(packed.numpy(), expected.packed)
    assert np.array_equal(scale.numpy(), expected.scales)


def test_quantize_names_a_weight_that_is_not_finite():
    dense = torch.zeros(3, 128)
    dense[2, 5] = torch.nan
    with pytest.raises(flexq.NonFiniteError, match="row 2, column 5"):
        cpu.quantize(dense, 128, "absmax32s", torch.float16)


def stack(experts=3, rows=48, columns=128):
    packed, scale = weight(experts * rows, columns)
    return packed.view(experts, rows, -1), scale.view(experts, rows, -1)


def test_grouped_linear_gives_each_row_its_expert():
    packed, scale = stack()
    x, ends = torch.randn(10, 128), torch.tensor([4, 4, 9])
    y = ops.grouped_linear(x, packed, scale, ends, 48, 128, 16)
    for expert, rows in [(0, slice(0, 4)), (2, slice(4, 9))]:
        assert_close(
            y[rows], reference.linear(x[rows], packed[expert], scale[expert], 128), torch.float32
        )


def calls():
    packed, scale = weight(32, 256)
    x = torch.randn(4, 256, requires_grad=True)
    bias = torch.randn(32, requires_grad=True)
    experts, scales = stack()
    rows, ends = torch.randn(6, 128, requires_grad=True), torch.tensor([2, 2, 6])
    indices = torch.tensor([[1, 2], [3, 31]])
    return {
        "linear": (x, packed, scale, bias, 32, 128, 16),
        "linear_out": (x.detach(), packed, scale, None, 32, 128, 8, torch.empty(4, 32)),
        "grouped_linear": (rows, experts, scales, ends, 48, 128, 16),
        "embedding": (indices, packed, scale, 32, 256, 128, torch.bfloat16),
        "dequantize": (packed, scale, 32, 256, 128, torch.float32),
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "name", ["linear", "linear_out", "grouped_linear", "embedding", "dequantize"]
)
def test_operators_keep_torchs_contract(name):
    outcome = torch.library.opcheck(getattr(ops, name).default, calls()[name])
    assert set(outcome.values()) == {"SUCCESS"}


def test_gradients_are_those_of_the_dense_product():
    packed, scale = weight(32, 256)
    dense = reference.dequantize(packed, scale, 256, 128)
    x, bias = torch.randn(5, 256, requires_grad=True), torch.randn(32, requires_grad=True)
    weights = torch.randn(5, 32)
    (ops.linear(x, packed, scale, bias, 32, 128, 16) * weights).sum().backward()
    torch.testing.assert_close(x.grad, weights @ dense, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(bias.grad, weights.sum(0))


def test_grouped_gradients_are_those_of_each_expert():
    packed, scale = stack()
    x = torch.randn(6, 128, requires_grad=True)
    ops.grouped_linear(x, packed, scale, torch.tensor([2, 2, 6]), 48, 128, 16).sum().backward()
    for expert, rows in [(0, slice(0, 2)), (2, slice(2, 6))]:
        dense = reference.dequantize(packed[expert], scale[expert], 128, 128)
        expected = dense.sum(0).expand(rows.stop - rows.start, -1)
        torch.testing.assert_close(x.grad[rows], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda p, s: (p[:, 1:], s), ValueError, "32 x 256 in groups of 128"),
        (lambda p, s: (p, s[:, :1]), ValueError, "expected 6144 packed bytes and 64 scales"),
        (lambda p, s: (p.int(), s), TypeError, "packed uint8"),
        (lambda p, s: (p, s.float()), TypeError, "scale float16, bfloat16 or uint16"),
        (lambda p, s: (p.T.contiguous().T, s), ValueError, "contiguous"),
        (lambda p, s: (p.view(-1), s.view(-1)), ValueError, "device order"),
    ],
)
def test_a_weight_that_does_not_fit_is_refused(change, error, message):
    packed, scale = change(*weight(32, 256))
    with pytest.raises(error, match=message):
        ops.linear(torch.randn(1, 256), packed, scale, None, 32, 128, 16)


def test_kernels_of_a_gpu_are_not_asked_to_read_past_a_weight():
    codes, scales = (torch.zeros(size) for size in _flexq.cuda_sizes(32, 256, 128))
    cuda._weight(codes, scales.half(), 32, 256, 128)
    cuda._weight(codes.repeat(3), scales.half().repeat(3), 32, 256, 128, experts=3)
    with pytest.raises(ValueError, match="weight of 32 x 512 in device order"):
        cuda._weight(codes, scales.half(), 32, 512, 128)
    with pytest.raises(ValueError, match="weight of 3 x 32 x 256 in device order"):
        cuda._weight(codes, scales.half(), 32, 256, 128, experts=3)
    with pytest.raises(ValueError, match=r"128 scales, found .* and 64"):
        cuda._weight(codes, scales.half()[:64], 32, 256, 128)


def test_activations_of_another_type_are_refused():
    packed, scale = weight(32, 256)
    with pytest.raises(TypeError, match="float64"):
        ops.linear(torch.randn(1, 256).double(), packed, scale, None, 32, 128, 16)


@pytest.mark.parametrize("wanted", [False, True])
def test_kernels_follow_inductor_where_it_makes_dependent_launches(monkeypatch, wanted):
    from torch._inductor import config

    asked = []
    monkeypatch.setattr(_flexq, "cuda_trigger_late", asked.append)
    module = FlexQLinear.from_linear(nn.Linear(128, 64))
    torch.compiler.reset()
    with config.patch({"triton.enable_pdl": wanted}):
        torch.compile(module, fullgraph=True, backend="aot_eager")(torch.randn(2, 128))
        assert set(asked) == ({True} if wanted else set())
        asked.clear()
        prepare(module)
        assert asked == ([True] if wanted else [])
