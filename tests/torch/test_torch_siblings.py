"""Layers that share their input multiply as one and give what each gives alone."""

import copy
import io

import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from flexq.torch import FlexQLinear, Scheme, quantize_model_  # noqa: E402
from flexq.torch.siblings import join  # noqa: E402
from torch import nn  # noqa: E402


class Attention(nn.Module):
    """The projections of attention, with a mixture of what they give."""

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.q_proj = nn.Linear(256, 192, bias)
        self.k_proj = nn.Linear(256, 64, bias)
        self.v_proj = nn.Linear(256, 64, bias)

    def forward(self, x, context=None):
        context = x if context is None else context
        return torch.cat([self.q_proj(x), self.k_proj(context), self.v_proj(context)], dim=-1)


@pytest.fixture(params=[False, True], ids=["plain", "bias"])
def alone(request):
    torch.manual_seed(6)
    model = Attention(request.param)
    quantize_model_(model, act_bits=16)
    return model


def products(monkeypatch):
    """Counts calls of the operator."""
    calls = []
    plain = torch.ops.flexq.linear

    class Counted:
        def __call__(self, *arguments, **settings):
            calls.append(arguments[4])
            return plain(*arguments, **settings)

    monkeypatch.setattr(torch.ops.flexq, "linear", Counted())
    return calls


def test_one_product_serves_all(alone, monkeypatch):
    joined = join(copy.deepcopy(alone), canonical=True)
    x = torch.randn(5, 256)
    expected = alone(x)
    calls = products(monkeypatch)
    assert torch.equal(joined(x), expected)
    assert torch.equal(joined(2 * x), alone(2 * x))
    assert calls[:2] == [320, 320]
    assert joined.q_proj.siblings._ready is None


def test_parameters_become_views_and_files_stay(alone):
    joined = join(copy.deepcopy(alone), canonical=True)
    start = joined.q_proj.weight_packed.data_ptr()
    assert joined.k_proj.weight_packed.data_ptr() == start + joined.q_proj.weight_packed.nbytes
    for name, tensor in alone.state_dict().items():
        assert torch.equal(joined.state_dict()[name], tensor), name


def test_another_input_parts_them(alone, monkeypatch):
    joined = join(copy.deepcopy(alone), canonical=True)
    x, context = torch.randn(5, 256), torch.randn(5, 256)
    expected = alone(x, context)
    calls = products(monkeypatch)
    assert torch.equal(joined(x, context), expected)
    assert joined.q_proj.siblings is None
    calls.clear()
    assert torch.equal(joined(x, context), expected)
    assert calls == [192, 64, 64]


def test_equal_values_in_another_tensor_are_no_shared_input(alone):
    joined = join(copy.deepcopy(alone), canonical=True)
    x = torch.randn(5, 256)
    first = joined.q_proj(x)
    x2 = x.clone().mul_(2)
    assert torch.equal(joined.k_proj(x2), alone.k_proj(x2))
    assert torch.equal(first, alone.q_proj(x))


def test_copies_pickles_and_loaded_weights_are_apart(alone):
    joined = join(copy.deepcopy(alone), canonical=True)
    x = torch.randn(3, 256)
    assert copy.deepcopy(joined).q_proj.siblings is None
    file = io.BytesIO()
    torch.save(joined, file)
    file.seek(0)
    assert torch.load(file, weights_only=False).k_proj.siblings is None
    other = Attention(alone.q_proj.bias is not None)
    quantize_model_(other, act_bits=16)
    joined.load_state_dict(other.state_dict())
    assert torch.equal(joined(x), other(x))


def test_replaced_parameters_are_used(alone):
    joined = join(copy.deepcopy(alone), canonical=True)
    x = torch.randn(3, 256)
    other = FlexQLinear.from_linear(nn.Linear(256, 64, bias=alone.k_proj.bias is not None))
    # as hooks that offload weights do it
    joined.k_proj._parameters.update(other._parameters)
    other.act_bits = 16
    assert torch.equal(joined(x)[:, 192:256], other(x))
    assert torch.equal(joined(x)[:, 256:], alone(x)[:, 256:])


def test_moving_parts_them(alone):
    joined = join(copy.deepcopy(alone), canonical=True).to(torch.float64).to(torch.float32)
    x = torch.randn(3, 256)
    assert joined.q_proj.siblings is None
    assert torch.equal(joined(x), alone(x))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m, "v_proj", nn.Linear(256, 64)),
        lambda m: setattr(m.k_proj, "act_bits", 8),
        lambda m: setattr(
            m, "k_proj", FlexQLinear.from_linear(nn.Linear(256, 64), scheme=Scheme(64))
        ),
        lambda m: setattr(m, "k_proj", FlexQLinear(256, 64, device="meta")),
    ],
    ids=["dense", "bits", "group", "meta"],
)
def test_what_does_not_fit_stays_apart(alone, change):
    change(alone)
    join(alone, canonical=True)
    assert alone.q_proj.siblings is None


def test_compiles_whole(alone):
    joined = join(copy.deepcopy(alone), canonical=True)
    compiled = torch.compile(joined, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.no_grad():
        for rows in (1, 4, 9):
            x = torch.randn(rows, 256)
            torch.testing.assert_close(compiled(x), alone(x))
    assert joined.q_proj.siblings._ready is None


def test_gradients_pass(alone):
    joined = join(copy.deepcopy(alone), canonical=True)
    x = torch.randn(3, 256)
    grads = []
    for model in (alone, joined):
        inputs = x.clone().requires_grad_()
        model(inputs).square().sum().backward()
        grads.append(inputs.grad)
    torch.testing.assert_close(*grads)
