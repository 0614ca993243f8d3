import copy
import json
import shutil
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")
pytest.importorskip("transformers", reason="the transformers extra is not installed")

import flexq  # noqa: E402
import flexq.transformers  # noqa: E402
from flexq.torch import (  # noqa: E402
    FlexQEmbedding,
    FlexQExperts,
    FlexQLinear,
    coverage,
    quantize_model_,
)
from flexq.torch.siblings import join  # noqa: E402
from flexq.transformers import FlexQConfig  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from tiny_models import TOKENS, exact, load, logits, stored  # noqa: E402
from transformers import AutoConfig, CompileConfig  # noqa: E402

MODELS = ["llama", "tied", "mixtral", "qwen3_moe"]


def assert_same_files(one, other):
    one, other = stored(one), stored(other)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, name
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("preset", ["linear", "full"])
@pytest.mark.parametrize("name", MODELS)
def test_a_packed_directory_is_what_quantizing_on_load_gives(dense, packed, name, preset):
    model = load(packed(name, preset))
    on_load = load(dense(name), quantization_config=FlexQConfig(preset=preset))
    assert torch.equal(logits(model), logits(on_load))
    report = coverage(model)
    assert report.share_dense == 0
    assert (report.tables_quantized > 0) == (preset == "full")
    error = logits(model) - logits(load(dense(name)))
    assert error.norm() < 0.1 * logits(model).norm()


@pytest.mark.parametrize("preset", ["linear", "full"])
@pytest.mark.parametrize("name", MODELS)
def test_saving_and_loading_keep_every_byte(packed, tmp_path, name, preset):
    model = load(packed(name, preset), dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "one", max_shard_size="200KB")
    assert len(list((tmp_path / "one").glob("*.safetensors"))) > 1
    again = load(tmp_path / "one")
    assert again.dtype == torch.bfloat16
    assert torch.equal(logits(again), logits(model))
    again.save_pretrained(tmp_path / "two", max_shard_size="200KB")
    assert_same_files(tmp_path / "one", tmp_path / "two")
    bytes_packed = stored(packed(name, preset))
    for key, tensor in stored(tmp_path / "two").items():
        if key.endswith(("_packed", "_scale")):
            assert torch.equal(tensor, bytes_packed[key]), key


@pytest.mark.parametrize("preset", ["linear", "full"])
@pytest.mark.parametrize("name", MODELS)
def test_a_saved_directory_passes_flexq_pack(packed, tmp_path, name, preset):
    source = packed(name, preset)
    model = load(source)
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="30KB")  # parts codes from scales
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    expected = flexq.inspect(source)
    for saved in (tmp_path / "one", tmp_path / "many"):
        assert flexq.verify(saved)["intact"]
        found = flexq.inspect(saved)
        assert found["method"] == "flexq"
        shapes = [
            {t["name"]: t["shape"] for t in report["tensors"]} for report in (found, expected)
        ]
        assert shapes[0] == shapes[1]
        weights = flexq.load_file(saved), flexq.load_file(source)
        for tensor in found["tensors"]:
            one, other = (file[tensor["name"]] for file in weights)
            assert not isinstance(other, flexq.QTensor) or one == other, tensor["name"]
        assert_same_files(saved, source)
        assert torch.equal(logits(load(saved)), logits(model))


def test_what_is_sent_to_a_hub_has_manifests(packed, tmp_path, monkeypatch):
    model = load(packed("llama"))
    sent = []

    def push_to_hub(self, repo_id, **settings):
        sent.append((repo_id, settings, flexq.verify(tmp_path)["intact"]))

    monkeypatch.setattr(type(model), "push_to_hub", push_to_hub)
    model.save_pretrained(tmp_path, push_to_hub=True, repo_id="someone/model", private=True)
    assert sent == [("someone/model", {"private": True}, True)]


@pytest.mark.parametrize("preset", ["linear", "full"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_quantized_in_place_can_be_saved(dense, packed, tmp_path, name, preset):
    model = load(dense(name))
    quantize_model_(model, preset=preset)
    model.save_pretrained(tmp_path)
    assert_same_files(tmp_path, packed(name, preset))
    assert flexq.verify(tmp_path)["intact"]
    assert torch.equal(logits(load(tmp_path)), logits(model))
    dense_again = model.dequantize()
    dense_again.save_pretrained(tmp_path / "dense")
    assert torch.equal(logits(load(tmp_path / "dense")), logits(dense_again))


@pytest.mark.parametrize("name", MODELS)
def test_pairs_of_scales(dense, packed, tmp_path, name):
    options = ["--scale-type", "pair", "--group-size", "32"]
    source = packed(name, "full", *options)
    model = load(source, config=exact(source))
    assert model.config.quantization_config.scale_dtype == "PAIR"
    settings = FlexQConfig(preset="full", group_size=32, scale_dtype="PAIR", act_bits=16)
    on_load = load(dense(name), quantization_config=settings)
    assert torch.equal(logits(model), logits(on_load))
    on_load.save_pretrained(tmp_path)
    assert flexq.verify(tmp_path)["intact"]
    assert_same_files(tmp_path, source)
    torch.testing.assert_close(logits(model), logits(model.dequantize()), rtol=1e-3, atol=1e-3)


def test_a_copy_of_a_model_saves_itself(packed, tmp_path):
    model = load(packed("llama"))
    twin = copy.deepcopy(model)
    model.lm_head.weight.data.zero_()
    twin.save_pretrained(tmp_path)
    assert flexq.verify(tmp_path)["intact"]
    assert_same_files(tmp_path, packed("llama"))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_quantized_on_load_can_be_saved(dense, packed, tmp_path, name):
    model = load(dense(name), quantization_config=FlexQConfig(preset="full"))
    model.save_pretrained(tmp_path)
    assert_same_files(tmp_path, packed(name, "full"))
    assert torch.equal(logits(load(tmp_path)), logits(model))


@pytest.mark.parametrize("preset", ["linear", "full"])
@pytest.mark.parametrize("name", MODELS)
def test_dequantize_gives_a_dense_model(packed, name, preset):
    config = AutoConfig.from_pretrained(packed(name, preset))
    config.quantization_config["dequantize"] = True
    model = load(packed(name, preset), config=config)
    assert coverage(model).packed_bytes == 0
    assert not hasattr(model.config, "quantization_config")
    again = load(packed(name, preset), config=exact(packed(name, preset)))
    torch.testing.assert_close(logits(model), logits(again), rtol=1e-4, atol=1e-4)
    assert torch.equal(logits(again.dequantize()), logits(model))


def test_scales_keep_their_type_and_biases_take_the_models(packed):
    model = load(packed("llama"), dtype=torch.bfloat16)
    layer = model.model.layers[0].self_attn.q_proj
    assert isinstance(layer, FlexQLinear)
    assert layer.weight_scale.dtype == torch.float16
    assert model.lm_head.weight.dtype == torch.bfloat16
    assert not any(p.requires_grad for p in layer.parameters())


def test_a_tied_head_is_stored_and_held_once(packed):
    model = load(packed("tied", "full"))
    assert isinstance(model.model.embed_tokens, FlexQEmbedding)
    assert model.lm_head.weight_packed is model.model.embed_tokens.weight_packed
    names = stored(packed("tied", "full"))
    assert (
        sum(
            name.endswith(("lm_head.weight_packed", "embed_tokens.weight_packed")) for name in names
        )
        == 1
    )


def test_a_tied_head_may_be_stored_under_its_own_name(packed, tmp_path):
    source = packed("tied", "full")
    tensors = {
        name.replace("model.embed_tokens", "lm_head"): tensor
        for name, tensor in stored(source).items()
    }
    shutil.copy(source / "config.json", tmp_path)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    assert torch.equal(logits(load(tmp_path)), logits(load(source)))


def test_only_the_head_of_a_tied_pair_can_be_packed(dense, tmp_path):
    model = load(dense("tied"), quantization_config=FlexQConfig(include=["lm_head"]))
    assert isinstance(model.lm_head, FlexQLinear)
    assert isinstance(model.model.embed_tokens, torch.nn.Embedding)
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert not again.config.tie_word_embeddings
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_experts_are_packed_and_stored_apart(packed, name):
    model = load(packed(name))
    experts = [m for m in model.modules() if isinstance(m, FlexQExperts)]
    assert len(experts) == 2
    assert experts[0].gate_up_proj_packed.shape[0] == 4


def test_generation_goes_on_from_a_packed_model(packed):
    model = load(packed("llama"))
    out = model.generate(TOKENS, max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert out.shape == (2, 12)


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_generation_compiles_a_step_with_a_static_cache_whole(packed, name):
    # on a GPU `generate` does so by itself
    model = join(load(packed(name, "full")), canonical=True)
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(TOKENS, **settings)
    how = CompileConfig(fullgraph=True, backend="aot_eager", mode=None)
    how._compile_all_devices = True
    torch._dynamo.utils.counters.clear()
    found = model.generate(TOKENS, cache_implementation="static", compile_config=how, **settings)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    assert torch.equal(found, expected)


def test_overrides_of_activation_bits_reach_the_modules(dense):
    config = FlexQConfig(act_bits=8, act_bits_overrides={"down_proj": 16, "re:.*q_proj": 6})
    model = load(dense("llama"), quantization_config=config)
    layer = model.model.layers[1]
    assert layer.mlp.down_proj.act_bits == 16
    assert layer.self_attn.q_proj.act_bits == 6
    assert layer.self_attn.k_proj.act_bits == 8
    with pytest.raises(ValueError, match="'down_prj' matches no quantized layer"):
        load(dense("llama"), quantization_config=FlexQConfig(act_bits_overrides={"down_prj": 8}))


def test_scales_of_activations_per_row_are_kept(dense, tmp_path):
    config = FlexQConfig(act_bits=8, act_group="row")
    model = load(dense("mixtral"), quantization_config=config)
    model.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert stored["act_group"] == "row"
    again = load(tmp_path)
    assert again.model.layers[1].self_attn.k_proj.act_group == 0
    assert torch.equal(logits(again), logits(model))
    per_columns = load(dense("mixtral"), quantization_config=FlexQConfig(act_bits=8))
    assert not torch.equal(logits(per_columns), logits(model))


def test_patterns_keep_layers_dense(dense, tmp_path, caplog):
    config = FlexQConfig(modules_to_not_convert=["down_proj"])
    model = load(dense("llama"), quantization_config=config)
    assert isinstance(model.model.layers[0].mlp.down_proj, torch.nn.Linear)
    assert "excluded by pattern" in caplog.text
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(load(tmp_path)), logits(model))
    with pytest.raises(ValueError, match="down_prj"):
        load(dense("llama"), quantization_config=FlexQConfig(modules_to_not_convert=["down_prj"]))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("device_map", ["cpu", {"": "cpu"}, {"": torch.device("cpu")}])
def test_a_device_map_places_a_model(packed, name, device_map):
    pytest.importorskip("accelerate", reason="device maps need accelerate")
    model = load(packed(name, "full"), device_map=device_map)
    assert torch.equal(logits(model), logits(load(packed(name, "full"))))


@pytest.mark.skipif(torch.cuda.is_available(), reason="auto takes GPUs where there are some")
@pytest.mark.parametrize("quantize", [False, True])
def test_a_device_map_of_auto_takes_what_there_is(dense, packed, quantize):
    pytest.importorskip("accelerate", reason="device maps need accelerate")
    settings = {"quantization_config": FlexQConfig()} if quantize else {}
    model = load((dense if quantize else packed)("llama"), device_map="auto", **settings)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert torch.equal(logits(model), logits(load(packed("llama"))))


@pytest.mark.parametrize("name", MODELS)
def test_weights_may_wait_elsewhere_until_they_are_needed(packed, name):
    accelerate = pytest.importorskip("accelerate", reason="device maps need accelerate")
    model = load(packed(name))
    expected = logits(model)
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert all(p.is_meta for p in model.parameters())
    assert torch.equal(logits(model), expected)


def test_importing_twice_registers_once():
    code = (
        "import importlib, flexq.transformers as f; importlib.reload(f); "
        "from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING as m; "
        "assert m['flexq'].__name__ == 'FlexQQuantizer'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
