"""Words of two scales in torch: the same bytes and values as with NumPy."""

import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

import flexq  # noqa: E402
from flexq.torch import (  # noqa: E402
    FlexQEmbedding,
    FlexQLinear,
    Scheme,
    cpu,
    portable,
    quantize_model_,
)
from flexq.torch.layout import PAIRED_GROUPS, unpair  # noqa: E402
from torch import nn  # noqa: E402

COLUMNS = 300


def weight(rows=64):
    return torch.randn(rows, COLUMNS) * 0.05


@pytest.mark.parametrize("group", PAIRED_GROUPS)
def test_bytes_and_values_are_those_of_numpy(group):
    dense = weight()
    packed, scale = cpu.quantize(dense, group, "mse", torch.uint16)
    expected = flexq.quantize(dense.numpy(), group, rule="mse", scale_dtype="pair")
    assert scale.dtype == torch.uint16
    assert (packed.numpy() == expected.packed).all()
    assert (scale.numpy() == expected.scales).all()
    values = torch.from_numpy(expected.dequantize())
    for place in (cpu, portable):
        found = place.dequantize(packed, scale, 64, COLUMNS, group, torch.float32)
        assert torch.equal(found, values)


def test_every_word_unpacks_as_the_core_does():
    words = torch.arange(1 << 16).view(-1, 1).to(torch.uint16)
    # the weight 1 in both halves of a group
    codes = cpu.quantize(torch.ones(1, 32), 32, "absmax32s", torch.float16)[0].repeat(1 << 16, 1)
    scales, width = unpair(words, 32, 32)
    assert width == 16
    values = cpu.dequantize(codes, words, 1 << 16, 32, 32, torch.float32)
    code = portable.unpack(codes[:1], 32)[0, 0].item()
    assert torch.equal(values[:, ::16], code * scales.float())


@pytest.mark.parametrize("group", PAIRED_GROUPS)
@pytest.mark.parametrize("act_bits", [16, 8])
def test_products(group, act_bits):
    dense = nn.Linear(COLUMNS, 64)
    scheme = Scheme(group, "mse", torch.uint16)
    module = FlexQLinear.from_linear(dense, scheme=scheme, act_bits=act_bits)
    x = torch.randn(5, COLUMNS)
    same = module.to_dense(torch.float32)
    if act_bits == 16:
        torch.testing.assert_close(module(x), same(x), rtol=1e-5, atol=1e-5)
    else:
        expected = same(portable.quantize_activations(x, 8))
        torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-4)


def test_a_table_and_a_model_in_place():
    scheme = Scheme(64, "mse", torch.uint16)
    table = nn.Embedding(20, COLUMNS)
    module = FlexQEmbedding.from_embedding(table, scheme=scheme)
    tokens = torch.tensor([3, 19])
    assert torch.equal(module(tokens), module.to_dense(torch.float32)(tokens))
    model = nn.Sequential(nn.Linear(COLUMNS, 64), nn.Linear(64, 8)).to(torch.bfloat16)
    quantize_model_(model, scheme=scheme)
    state = model.half().state_dict()
    assert state["0.weight_scale"].dtype == torch.uint16
    other = nn.Sequential(nn.Linear(COLUMNS, 64), nn.Linear(64, 8)).half()
    quantize_model_(other, scheme=scheme)
    other.load_state_dict(state)
    x = torch.randn(2, COLUMNS).half()
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize("group", [0, 256])
def test_groups_that_have_no_halves_are_refused(group):
    with pytest.raises(ValueError, match="expected 32, 64 or 128"):
        Scheme(group, "mse", torch.uint16)
