"""A policy found on a model with planted outliers, and what everybody makes of it."""

import json

import flexq
import numpy as np
import pytest
from flexq.eval.analyze import analyze
from flexq.eval.checkpoint import to_float32
from flexq.eval.evaluate import evaluate
from flexq.eval.llama import HEAD
from flexq.eval.sensitivity import recommend
from flexq.policy import Policy
from planted import plant
from safetensors.numpy import save_file

PLANTED = {
    "model.layers.0.mlp.gate_proj": 32.0,
    "model.layers.1.self_attn.o_proj": 32.0,
    "model.layers.2.mlp.down_proj": 32.0,
}


@pytest.fixture(scope="module")
def outliers(austen, plain, weights, tensors, tmp_path_factory):
    """A directory with the Austen model, outliers planted: the same function in float."""
    path = tmp_path_factory.mktemp("outliers")
    model, changed = plant(plain, weights, PLANTED)
    matrices = {f"{name}.weight": w for name, w in changed.items()}
    norms = {f"{name}.weight": norm for name, norm in model.norms.items()}
    table = "model.embed_tokens.weight"
    floats = matrices | norms | {table: to_float32(tensors[table])}
    save_file(floats, path / "model.safetensors", {"format": "pt"})
    for name in ("config.json", "tokenizer.json"):
        (path / name).write_bytes((austen / name).read_bytes())
    return path


@pytest.fixture(scope="module")
def policy(outliers, austen_text, tmp_path_factory):
    few = tmp_path_factory.mktemp("text") / "few.txt"
    few.write_text(austen_text.read_text()[:600])
    return recommend(analyze(outliers, source="text", text=few))


@pytest.fixture(scope="module")
def packed(outliers, policy, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed")
    policy.save(path / "policy.json")
    flexq.pack(outliers, path / "model", policy=str(path / "policy.json"))
    return path / "model"


def test_the_policy_protects_what_was_planted(policy):
    assert policy.act_bits == 6
    # gate_proj and up_proj read the same inputs
    for name in (*PLANTED, "model.layers.0.mlp.up_proj"):
        assert policy.bits(name) == 8, name


def test_the_policy_is_in_the_packed_config(packed, policy):
    assert Policy.load(packed) == policy
    config = json.loads((packed / "config.json").read_text())["quantization_config"]
    assert config["act_bits_overrides"] == dict(policy.overrides)


def test_its_perplexity_with_the_kernels(packed, outliers, austen_text):
    names = ["float", "w6a8", "w6ax", "w6a6"]
    scores = evaluate(packed, text=austen_text, limit=500, variants=names, reference=outliers)
    assert scores["w6ax"].kl < 0.5 * scores["w6a6"].kl
    assert scores["w6ax"].kl < 4 * scores["w6a8"].kl


def test_torch_and_transformers_obey_it_like_matmul(packed, policy):
    """Layer by layer: the same input gives the same output, bit for bit."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    import flexq.transformers
    from flexq.torch import FlexQLinear

    model = transformers.AutoModelForCausalLM.from_pretrained(packed, dtype=torch.float32)
    tensors = flexq.load_file(packed)
    generator = torch.Generator().manual_seed(3)
    widths = set()
    for name, module in model.named_modules():
        if not isinstance(module, FlexQLinear):
            continue
        bits = policy.bits(name)
        widths.add(bits)
        x = torch.randn(5, module.in_features, generator=generator)
        y = flexq.matmul(x.numpy(), tensors[f"{name}.weight"], act_bits=bits)
        np.testing.assert_array_equal(module(x).numpy(), y, err_msg=name)
    assert widths == {6, 8}
    assert HEAD in dict(model.named_modules())
