"""Checkpoints and settings that are refused, and what is kept of others'."""

import json
import shutil

import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")
pytest.importorskip("transformers", reason="the transformers extra is not installed")

import flexq.transformers  # noqa: E402
from flexq.torch import coverage  # noqa: E402
from flexq.transformers import FlexQConfig  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from tiny_models import load, stored  # noqa: E402


def copied(source, target, change):
    """A copy of a packed directory whose tensors went through `change`."""
    tensors = stored(source)
    change(tensors)
    shutil.copy(source / "config.json", target)
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    return target


LAYER = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop(LAYER + "_scale"),
            f"{LAYER}_packed: its scales {LAYER}_scale are missing",
        ),
        (
            lambda t: t.update({LAYER + "_packed": t[LAYER + "_packed"][:, :96].clone()}),
            rf"{LAYER}_packed: expected shape \(512, 192\) for groups of 128, found \(512, 96\)",
        ),
        (
            lambda t: t.update(
                {
                    "odd.weight_packed": t.pop(LAYER + "_packed"),
                    "odd.weight_scale": t.pop(LAYER + "_scale"),
                }
            ),
            "odd.weight is packed, but LlamaForCausalLM has no",
        ),
        (
            lambda t: [t.pop(name) for name in list(t) if name.endswith(("_packed", "_scale"))],
            "holds no packed weight",
        ),
        (
            lambda t: t.update({LAYER + "_scale": t[LAYER + "_scale"].bfloat16()}),
            r"scales of several types in one checkpoint: \['BF16', 'F16'\]",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(packed, tmp_path, change, message):
    directory = copied(packed("llama"), tmp_path, change)
    with pytest.raises(ValueError, match=message):
        load(directory)


def test_a_file_that_is_cut_off_is_named(packed, tmp_path):
    directory = copied(packed("llama"), tmp_path, lambda tensors: None)
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(flexq.FormatError, match=r"model\.safetensors: .*is it complete"):
        load(directory)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"bits": 4}, "expected 6, found 4"),
        ({"group_size": 100}, "group_size"),
        ({"preset": "all"}, "expected linear or full"),
        ({"act_bits": 4}, "act_bits"),
        ({"act_group": 64}, "act_group"),
        ({"scale_rule": "best"}, "scale_rule"),
        ({"scale_dtype": "F32"}, "scale_dtype"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FlexQConfig(**settings)


def test_keys_of_other_tools_survive(packed, tmp_path):
    directory = copied(packed("llama"), tmp_path, lambda tensors: None)
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"]["note"] = "kept"
    (directory / "config.json").write_text(json.dumps(config))
    load(directory).save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())["quantization_config"]
    assert again["note"] == "kept"
    assert again["quant_method"] == "flexq"
    assert "dequantize" not in again


@pytest.mark.parametrize("place", ["disk", "meta"])
def test_weights_do_not_stay_on_disk(packed, tmp_path, place):
    device_map = {"model.embed_tokens": "cpu", "model.layers": place, "": "cpu"}
    with pytest.raises(ValueError, match=f"device_map puts model.layers on '{place}'"):
        load(packed("llama"), device_map=device_map, offload_folder=tmp_path)


def test_from_pretrained_wants_a_packed_model(dense, packed):
    assert coverage(flexq.transformers.from_pretrained(packed("llama"))).packed_bytes > 0
    with pytest.raises(ValueError, match="not a packed model"):
        flexq.transformers.from_pretrained(dense("llama"))
