import json

import flexq
import numpy as np
import pytest
from flexq.eval.checkpoint import to_float32
from flexq.eval.llama import Cache, LlamaConfig
from flexq.eval.variant import Build, Variant
from safetensors.numpy import save_file

IDS = np.array([[0, 17, 330, 5, 1999, 42, 7], [0, 3, 3, 800, 12, 2047, 1]], np.int64)


def save(directory, *, tied=True, bias=False, kind="llama", **changes):
    """A random model directory."""
    config = {
        "model_type": kind,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 50,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 32,
        "rope_theta": 5000.0,
        "tie_word_embeddings": tied,
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
        "architectures": ["LlamaForCausalLM"],
    } | changes
    rng = np.random.default_rng(3)

    def draw(*shape):
        return (rng.standard_normal(shape) * 0.2).astype(np.float32)

    tensors = {"model.embed_tokens.weight": draw(50, 64), "model.norm.weight": 1 + draw(64)}
    if not tied:
        tensors["lm_head.weight"] = draw(50, 64)
    for layer in range(2):
        name = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{name}{norm}.weight"] = 1 + draw(64)
        shapes = {"q": (64, 64), "k": (32, 64), "v": (32, 64), "o": (64, 64)}
        for letter, shape in shapes.items():
            tensors[f"{name}self_attn.{letter}_proj.weight"] = draw(*shape)
            if bias and letter != "o":
                tensors[f"{name}self_attn.{letter}_proj.bias"] = draw(shape[0])
        shapes = {"gate": (96, 64), "up": (96, 64), "down": (64, 96)}
        for kind_, shape in shapes.items():
            tensors[f"{name}mlp.{kind_}_proj.weight"] = draw(*shape)
    (directory / "config.json").write_text(json.dumps(config))
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def load(directory):
    return Build().model(directory, flexq.load_file(directory), Variant("float"))


def expected(directory, ids):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.from_numpy(ids)).logits.numpy()


def test_equals_transformers_on_the_trained_model(austen, plain):
    exact = expected(austen, IDS)
    np.testing.assert_allclose(plain.logits(IDS), exact, rtol=0, atol=2e-4 * np.abs(exact).max())


@pytest.mark.parametrize(
    "options",
    [{}, {"tied": False}, {"bias": True, "kind": "qwen2", "architectures": ["Qwen2ForCausalLM"]}],
    ids=["tied", "untied", "bias"],
)
def test_equals_transformers_on_random_models(tmp_path, options):
    directory = save(tmp_path, **options)
    ids = IDS % 50
    exact = expected(directory, ids)
    np.testing.assert_allclose(load(directory).logits(ids), exact, rtol=0, atol=2e-5)


def test_head_alone_stands_for_the_embedding(tinystories):
    model = load(tinystories)
    ids = IDS.clip(max=2000)
    exact = expected(tinystories, ids)
    np.testing.assert_allclose(model.logits(ids), exact, rtol=0, atol=2e-4 * np.abs(exact).max())


def test_cache_gives_the_same_logits(plain):
    whole = plain.logits(IDS)
    cache = Cache(plain.config, batch=2, positions=16)
    parts = [plain.logits(IDS[:, a:b], cache) for a, b in [(0, 3), (3, 4), (4, 7)]]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=0, atol=1e-4)


def test_generation(plain):
    prompt = IDS[0].tolist()
    greedy = list(plain.generate(prompt, 5))
    follow = plain.logits(np.array([prompt + greedy], np.int64))[0].argmax(-1)
    assert greedy == follow[len(prompt) - 1 : -1].tolist()
    drawn = [list(plain.generate(prompt, 12, temperature=1.0, seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(list(plain.generate([0] * 510, 99))) <= 2  # the context ends


def test_config_refuses_what_the_forward_pass_does_not_do(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="model_type 'gpt2': expected llama"):
        LlamaConfig.load(tmp_path)
    save(tmp_path, rope_scaling={"rope_type": "yarn", "factor": 2.0})
    with pytest.raises(ValueError, match="rotary embedding 'yarn'"):
        LlamaConfig.load(tmp_path)
    config = LlamaConfig.load(save(tmp_path))
    assert (config.bos, config.eos, config.head_dim) == (1, 2, 16)


def test_exchange_of_unknown_layers_is_refused(plain):
    with pytest.raises(ValueError, match=r"no linear layer 'model\.layers\.9\.mlp\.up_proj'"):
        plain.with_linears({"model.layers.9.mlp.up_proj": lambda x: x})


def test_bfloat16_bits_become_floats():
    bits = np.array([0x3F80, 0xC020, 0x0000], np.uint16)
    np.testing.assert_array_equal(to_float32(bits), np.array([1.0, -2.5, 0.0], np.float32))
