import copy
import pickle

import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from flexq.torch import (  # noqa: E402
    FlexQEmbedding,
    FlexQExperts,
    FlexQLinear,
    Scheme,
    coverage,
    dequantize_model_,
    policy,
    quantize_model_,
)
from torch import nn  # noqa: E402


class Tiny(nn.Module):
    """The parts of a language model, tied if asked."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(50, 128)
        self.up_proj = nn.Linear(128, 256)
        self.down_proj = nn.Linear(256, 128, bias=False)
        self.norm = nn.LayerNorm(128)
        self.lm_head = nn.Linear(128, 50, bias=False)
        if tied:
            self.lm_head.weight = self.embed_tokens.weight

    def forward(self, tokens):
        x = self.embed_tokens(tokens)
        return self.lm_head(self.norm(x + self.down_proj(self.up_proj(x).relu())))


class Experts(nn.Module):
    """Fused experts as transformers keeps them, computed one token at a time."""

    def __init__(self, experts=4, hidden=128, intermediate=64) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(experts, 2 * intermediate, hidden))
        self.down_proj = nn.Parameter(torch.randn(experts, hidden, intermediate))
        self.act_fn = nn.SiLU()

    def forward(self, hidden, chosen, weights):
        out = torch.zeros_like(hidden)
        for token in range(hidden.shape[0]):
            for expert, weight in zip(chosen[token], weights[token], strict=True):
                gate, up = (self.gate_up_proj[expert] @ hidden[token]).chunk(2)
                out[token] += weight * (self.down_proj[expert] @ (self.act_fn(gate) * up))
        return out


def test_linear_equals_its_dense_form():
    linear = nn.Linear(172, 40)
    module = FlexQLinear.from_linear(linear, scheme=Scheme(64), act_bits=16)
    assert module.bias is linear.bias
    x = torch.randn(3, 172)
    torch.testing.assert_close(module(x), module.to_dense(torch.float32)(x))
    assert (module(x) - linear(x)).norm() < 0.03 * linear(x).norm()
    assert repr(module) == (
        "FlexQLinear(in_features=172, out_features=40, bias=True, group_size=64, act_bits=16)"
    )


def test_conversion_leaves_scales_as_they_are():
    module = FlexQLinear.from_linear(nn.Linear(128, 32))
    before = module.weight_scale.clone()
    module.to(torch.bfloat16)
    assert torch.equal(module.weight_scale, before)
    assert module.bias.dtype == torch.bfloat16
    assert module(torch.randn(2, 128, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_an_embedding_gives_rows_in_the_models_type():
    embedding = FlexQEmbedding.from_embedding(nn.Embedding(50, 128))
    tokens = torch.tensor([[1, 49]])
    assert torch.equal(embedding(tokens), embedding.to_dense(torch.float32)(tokens))
    assert embedding.to(torch.bfloat16)(tokens).dtype == torch.bfloat16
    assert next(embedding.parameters()).dtype == torch.bfloat16
    with pytest.raises(TypeError, match=r"indices: expected integers, found torch\.float32"):
        embedding(torch.tensor([1.0]))


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_modules_can_be_copied(copier):
    model = Tiny()
    quantize_model_(model, preset="full")
    tokens = torch.arange(6)
    assert torch.equal(copier(model)(tokens), model(tokens))


def test_a_state_dict_goes_round():
    model, other = Tiny(), Tiny()
    quantize_model_(model, preset="full")
    quantize_model_(other, preset="full")
    state = model.state_dict()
    assert "embed_tokens.weight_packed" in state
    assert not any(name.endswith(".weight") for name in state if "norm" not in name)
    other.load_state_dict(state)
    tokens = torch.arange(6)
    assert torch.equal(other(tokens), model(tokens))


def test_compiles_whole_and_with_any_number_of_rows():
    module = FlexQLinear.from_linear(nn.Linear(256, 96), act_bits="auto")
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows in (2, 3, 40):
        x = torch.randn(rows, 256, requires_grad=True)
        y = compiled(x)
        assert torch.equal(y, module(x))
        y.sum().backward()


def test_experts_equal_their_dense_form():
    dense = Experts()
    experts = FlexQExperts.from_experts(dense, act_bits=(16, 16))
    same = experts.to_dense(torch.float32)
    assert isinstance(same, Experts)
    hidden = torch.randn(9, 128)
    weights, chosen = torch.randn(9, 4).softmax(-1).topk(2)
    expected = same(hidden, chosen, weights)
    torch.testing.assert_close(experts(hidden, chosen, weights), expected, rtol=1e-4, atol=1e-3)


def test_experts_of_another_process_count_nothing():
    experts = FlexQExperts.from_experts(Experts(), act_bits=(16, 16))
    same = experts.to_dense(torch.float32)
    for name in experts.names():
        packed, scale = experts.packed(name)
        experts.assign(name, packed[:3].clone(), scale[:3].clone(), experts.columns(name))
    hidden = torch.randn(9, 128)
    weights, chosen = torch.randn(9, 4).softmax(-1).topk(2)
    mine = torch.where(chosen < 3, weights, 0)
    expected = same(hidden, chosen, mine)
    torch.testing.assert_close(experts(hidden, chosen, weights), expected, rtol=1e-4, atol=1e-3)


def test_experts_compile_whole():
    experts = FlexQExperts.from_experts(Experts())
    compiled = torch.compile(experts, fullgraph=True, dynamic=True, backend="aot_eager")
    hidden = torch.randn(5, 128)
    weights, chosen = torch.randn(5, 4).softmax(-1).topk(2)
    assert torch.equal(compiled(hidden, chosen, weights), experts(hidden, chosen, weights))


def test_presets_differ_in_tables():
    linear, full = Tiny(), Tiny()
    report = quantize_model_(linear)
    assert (report.quantized, report.dense) == (2 * 128 * 256, 0)
    assert (report.tables_quantized, report.tables_dense) == (0, 2 * 50 * 128)
    assert isinstance(linear.lm_head, nn.Linear)
    report = quantize_model_(full, preset="full")
    assert (report.tables_quantized, report.tables_dense) == (2 * 50 * 128, 0)
    assert isinstance(full.embed_tokens, FlexQEmbedding)
    bits = 8 * report.packed_bytes / (report.quantized + report.tables_quantized)
    assert bits == pytest.approx(6.125)


def test_tied_tables_stay_tied():
    model = Tiny(tied=True)
    report = quantize_model_(model, preset="full")
    assert model.lm_head.weight_packed is model.embed_tokens.weight_packed
    assert report.tables_quantized == 50 * 128
    dequantize_model_(model, torch.float32)
    assert model.lm_head.weight is model.embed_tokens.weight


def test_patterns_choose_and_are_checked():
    model = Tiny()
    report = quantize_model_(model, include=["lm_head"], exclude=["re:up_"])
    assert isinstance(model.lm_head, FlexQLinear)
    assert isinstance(model.up_proj, nn.Linear)
    assert report.kept == {"up_proj.weight": "excluded by pattern"}
    assert report.share_dense == pytest.approx(0.5)
    assert "kept, excluded by pattern: up_proj.weight" in str(report)
    with pytest.raises(ValueError, match='exclude pattern "down_prj" matches no tensor'):
        quantize_model_(Tiny(), exclude=["down_prj"])
    with pytest.raises(ValueError, match="no weight to quantize"):
        quantize_model_(nn.LayerNorm(4))


def test_activation_bits_follow_overrides():
    model = Tiny()
    quantize_model_(model, act_bits=6, act_bits_overrides={"down_proj": 8, "re:.*proj": 16})
    assert (model.up_proj.act_bits, model.down_proj.act_bits) == (16, 8)
    with pytest.raises(ValueError, match="'auto', 16, 8 or 6, found 7"):
        quantize_model_(Tiny(), act_bits=7)
    with pytest.raises(ValueError, match="'down_prj' matches no quantized layer"):
        quantize_model_(Tiny(), act_bits_overrides={"down_prj": 8})


def test_auto_chooses_by_rows_and_device():
    assert policy.resolve(policy.AUTO, policy.AUTO_GROUP, 1, "cpu") == (16, False)
    assert policy.resolve(policy.AUTO, policy.AUTO_GROUP, 4096, "cpu") == (8, False)
    assert policy.resolve(policy.AUTO, policy.ROW, 4096, "cpu") == (8, True)
    assert policy.resolve(policy.AUTO, policy.AUTO_GROUP, 4096, "cuda") == (8, True)
    assert policy.resolve(policy.AUTO, policy.COLUMNS, 4096, "cuda") == (16, False)
    assert policy.resolve(6, policy.AUTO_GROUP, 4096, "cuda") == (6, False)
    assert policy.resolve(8, policy.ROW, 1, "cuda") == (8, True)


def test_dequantize_leaves_no_packed_weight():
    model = Tiny()
    quantize_model_(model, preset="full", act_bits=16)
    tokens = torch.arange(6)
    packed = model(tokens)
    dequantize_model_(model, torch.float32)
    assert coverage(model).packed_bytes == 0
    torch.testing.assert_close(model(tokens), packed, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group_size": 48}, "group_size: expected 32, 64, 128, 256 or 0, found 48"),
        ({"scale_rule": "minmax"}, "scale_rule: expected one of absmax31"),
        ({"scale_dtype": torch.float32}, "scale_dtype: expected float16, bfloat16 or uint16"),
    ],
)
def test_a_scheme_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Scheme(**settings)
