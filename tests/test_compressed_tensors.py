"""Exporting to and importing from compressed-tensors: every code and scale stays what it was.

The package itself is the judge: it makes the files that are imported and reads those exported.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from oracle import pack
from safetensors.torch import load_file, save_file

torch = pytest.importorskip("torch")
pytest.importorskip("compressed_tensors")

from compressed_tensors.compressors import ModelCompressor  # noqa: E402
from compressed_tensors.compressors.pack_quantized.helpers import (  # noqa: E402
    pack_to_int32,
    unpack_from_int32,
)
from compressed_tensors.quantization import (  # noqa: E402
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
    apply_quantization_config,
    preset_name_to_scheme,
)
from compressed_tensors.quantization.lifecycle.forward import dequantize  # noqa: E402
from compressed_tensors.quantization.utils import calculate_qparams  # noqa: E402

Cli = Callable[..., dict]

HIDDEN, INNER, VOCABULARY = 256, 384, 64
CONFIG = {"model_type": "llama", "hidden_size": HIDDEN, "tie_word_embeddings": False}


class Mlp(torch.nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.up_proj = torch.nn.Linear(HIDDEN, INNER, bias=bias)
        self.down_proj = torch.nn.Linear(INNER, HIDDEN, bias=False)


class Model(torch.nn.Module):
    """Modules under the names of a language model; it need not compute anything."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.Module()
        self.model.embed_tokens = torch.nn.Embedding(VOCABULARY, HIDDEN)
        self.model.layers = torch.nn.ModuleList()
        for bias in (True, False):
            layer = torch.nn.Module()
            layer.mlp = Mlp(bias)
            self.model.layers.append(layer)
        self.lm_head = torch.nn.Linear(HIDDEN, VOCABULARY, bias=False)


def scheme_of(name: str) -> QuantizationScheme:
    if name in ("W6A16", "W6A8"):
        return preset_name_to_scheme(name, ["Linear"])
    args = {"num_bits": 6, "type": "int", "symmetric": True}
    strategy = {
        "channel": {"strategy": "channel"},
        "g64": {"strategy": "group", "group_size": 64},
        "asymmetric": {"strategy": "group", "group_size": 128, "symmetric": False},
        "4bit": {"strategy": "group", "group_size": 128, "num_bits": 4},
    }[name]
    return QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**{**args, **strategy}))


def make(path: Path, name: str, dtype: torch.dtype, format: str | None = None) -> Model:
    """A checkpoint that the package itself quantized, compressed and described."""
    torch.manual_seed(6)
    model = Model().to(dtype)
    scheme = scheme_of(name)
    apply_quantization_config(
        model, QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"])
    )
    for module in model.modules():
        args = scheme.weights
        if not hasattr(module, "weight_scale"):
            continue
        width = args.group_size or module.weight.shape[1]
        groups = module.weight.detach().unflatten(1, (-1, width))
        scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), args)
        module.weight_scale.data = scale
        if hasattr(module, "weight_zero_point"):
            module.weight_zero_point.data = zero.to(torch.int8)
    compressor = ModelCompressor.from_pretrained_model(model, quantization_format=format)
    compressor.compress_model(model)
    path.mkdir()
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, path / "model.safetensors"
    )
    (path / "config.json").write_text(json.dumps(CONFIG))
    compressor.update_config(str(path))
    return model


MODULES = [f"model.layers.{i}.mlp.{name}_proj" for i in range(2) for name in ("up", "down")]


def codes_of(tensors: dict[str, torch.Tensor], module: str) -> torch.Tensor:
    """The signed codes of a module as compressed-tensors reads them."""
    if f"{module}.weight_packed" in tensors:
        shape = torch.Size(tensors[f"{module}.weight_shape"].tolist())
        return unpack_from_int32(tensors[f"{module}.weight_packed"], 6, shape)
    return tensors[f"{module}.weight"]


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (
        a.dtype == b.dtype and a.shape == b.shape and a.view(torch.uint8).equal(b.view(torch.uint8))
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("W6A16", None),
        ("W6A16", "naive-quantized"),
        ("W6A8", None),
        ("g64", None),
        ("channel", None),
        ("channel", "int-quantized"),
    ],
)
def test_import_keeps_every_code_and_scale(
    flexq_pack: Cli, tmp_path: Path, name: str, format: str | None, dtype: torch.dtype
) -> None:
    make(tmp_path / "in", name, dtype, format)
    before = load_file(tmp_path / "in" / "model.safetensors")
    report = flexq_pack("import", tmp_path / "in", tmp_path / "out")
    dense = f"{MODULES[0]}.weight_packed" in before
    assert (report["dense"], report["from_int8"]) == ((4, 0) if dense else (0, 4))

    after = load_file(tmp_path / "out" / "model.safetensors")
    for module in MODULES:
        codes = codes_of(before, module)
        rows, columns = codes.shape
        packed = after[f"{module}.weight_packed"].numpy()
        assert packed.shape == (rows, columns * 6 // 8)
        np.testing.assert_array_equal(packed, pack(codes.numpy()))
        assert same_bits(after[f"{module}.weight_scale"], before[f"{module}.weight_scale"])
    for kept in ("model.embed_tokens.weight", "lm_head.weight", "model.layers.0.mlp.up_proj.bias"):
        assert same_bits(after[kept], before[kept])

    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "flexq"
    assert config["act_bits"] == (8 if name == "W6A8" else "auto")
    assert config["modules_to_not_convert"] == ["lm_head"]
    assert flexq_pack("verify", tmp_path / "out")["intact"]


def test_int8_import_saves_a_quarter_of_the_codes(flexq_pack: Cli, tmp_path: Path) -> None:
    make(tmp_path / "in", "W6A8", torch.bfloat16)
    report = flexq_pack("import", tmp_path / "in", tmp_path / "out")
    codes = 2 * 2 * HIDDEN * INNER
    before = (tmp_path / "in" / "model.safetensors").stat().st_size
    after = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert report["bytes_before"] == before
    assert report["work"]["total_bytes"] == after
    headers = 8192
    assert abs((before - after) - codes // 4) < headers


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("group", ["128", "64", "row"])
def test_export_is_what_the_package_reads(
    flexq_pack: Cli, tmp_path: Path, dtype: torch.dtype, group: str
) -> None:
    torch.manual_seed(7)
    tensors = {k: v.contiguous() for k, v in Model().to(dtype).state_dict().items()}
    source = tmp_path / "in"
    source.mkdir()
    save_file(tensors, source / "model.safetensors")
    (source / "config.json").write_text(json.dumps(CONFIG))
    flexq_pack("pack", source, tmp_path / "packed", "--group-size", group)
    flexq_pack("export", "--to", "compressed-tensors", tmp_path / "packed", tmp_path / "out")

    packed = load_file(tmp_path / "packed" / "model.safetensors")
    exported = load_file(tmp_path / "out" / "model.safetensors")
    quantization = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    config = QuantizationConfig.model_validate(quantization)
    assert config.ignore == ["lm_head"]
    args = config.config_groups["group_0"].weights
    for module in MODULES:
        codes = codes_of(exported, module)
        rows, columns = codes.shape
        assert [rows, columns] == list(tensors[f"{module}.weight"].shape)
        ours = packed[f"{module}.weight_packed"].numpy()
        np.testing.assert_array_equal(ours, pack(codes.numpy()))
        assert ours.tobytes() == exported[f"{module}.weight_packed"].numpy().tobytes()
        assert same_bits(pack_to_int32(codes, 6), exported[f"{module}.weight_packed"])
        scale = exported[f"{module}.weight_scale"]
        assert same_bits(scale, packed[f"{module}.weight_scale"])
        # what the package computes from these is what ours unpacks to, in the type of the scales
        theirs = dequantize(x_q=codes, scale=scale, args=args)
        flat = scale.float().repeat_interleave(columns // scale.shape[1], 1) * codes.float()
        assert same_bits(theirs, flat.to(scale.dtype))
    assert same_bits(exported["lm_head.weight"], tensors["lm_head.weight"])


def test_a_model_exported_loads_and_decompresses(flexq_pack: Cli, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=96,
        tie_word_embeddings=False,
    )
    torch.manual_seed(8)
    model = transformers.LlamaForCausalLM(config).to(torch.float16)
    model.save_pretrained(tmp_path / "in")
    flexq_pack("pack", tmp_path / "in", tmp_path / "packed")
    flexq_pack("export", tmp_path / "packed", tmp_path / "out")
    flexq_pack("unpack", tmp_path / "packed", tmp_path / "floats")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float16
    )
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "floats", dtype=torch.float16
    )
    tokens = torch.arange(24).reshape(2, 12)
    with torch.no_grad():
        assert loaded(tokens).logits.equal(plain(tokens).logits)


def test_there_and_back_is_the_same_file(flexq_pack: Cli, tmp_path: Path) -> None:
    make(tmp_path / "in", "W6A16", torch.bfloat16)
    flexq_pack("import", tmp_path / "in", tmp_path / "ours")
    flexq_pack("export", tmp_path / "ours", tmp_path / "theirs")
    before = load_file(tmp_path / "in" / "model.safetensors")
    after = load_file(tmp_path / "theirs" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(same_bits(before[name], after[name]) for name in before)


def test_experts_are_exported_one_by_one(flexq_pack: Cli, tmp_path: Path) -> None:
    experts, inner = 3, 128
    prefix = "model.layers.0.mlp.experts"
    torch.manual_seed(9)
    stacks = {
        f"{prefix}.gate_up_proj": torch.randn(experts, 2 * inner, HIDDEN),
        f"{prefix}.down_proj": torch.randn(experts, HIDDEN, inner),
    }
    source = tmp_path / "in"
    source.mkdir()
    save_file(stacks, source / "model.safetensors")
    (source / "config.json").write_text(json.dumps(CONFIG))
    flexq_pack("pack", source, tmp_path / "packed")
    flexq_pack("export", tmp_path / "packed", tmp_path / "out")
    ours = load_file(tmp_path / "packed" / "model.safetensors")
    theirs = load_file(tmp_path / "out" / "model.safetensors")
    halves = {
        "gate_proj": ("gate_up_proj", 0),
        "up_proj": ("gate_up_proj", inner),
        "down_proj": ("down_proj", 0),
    }
    for expert in range(experts):
        for name, (stack, first) in halves.items():
            module = f"{prefix}.{expert}.{name}"
            rows = theirs[f"{module}.weight_shape"][0]
            packed = ours[f"{prefix}.{stack}_packed"][expert, first : first + rows]
            np.testing.assert_array_equal(packed.numpy(), pack(codes_of(theirs, module).numpy()))
            scale = ours[f"{prefix}.{stack}_scale"][expert, first : first + rows]
            assert same_bits(scale.contiguous(), theirs[f"{module}.weight_scale"])
    # and per-expert names are taken back
    flexq_pack("import", tmp_path / "out", tmp_path / "back")
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert f"{prefix}.2.up_proj.weight_packed" in back


def test_rows_that_are_no_whole_words(flexq_pack: Cli, tmp_path: Path) -> None:
    """K = 172: 129 bytes of ours, 33 words of theirs."""
    torch.manual_seed(10)
    weight = {"a.weight": torch.randn(5, 172, dtype=torch.float16)}
    source = tmp_path / "in"
    source.mkdir()
    save_file(weight, source / "model.safetensors")
    (source / "config.json").write_text("{}")
    flexq_pack("pack", source, tmp_path / "packed", "--group-size", "row")
    flexq_pack("export", tmp_path / "packed", tmp_path / "out")
    packed = load_file(tmp_path / "packed" / "model.safetensors")["a.weight_packed"]
    exported = load_file(tmp_path / "out" / "model.safetensors")
    assert exported["a.weight_packed"].shape == (5, 33)
    codes = codes_of(exported, "a")
    np.testing.assert_array_equal(packed.numpy(), pack(codes.numpy()))
    assert same_bits(pack_to_int32(codes, 6), exported["a.weight_packed"])
    flexq_pack("import", tmp_path / "out", tmp_path / "back")
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert same_bits(back["a.weight_packed"], packed)

    flexq_pack("pack", source, tmp_path / "ragged")
    message = flexq_pack("export", tmp_path / "ragged", tmp_path / "no", code=3)["error"]
    assert "a.weight" in message
    assert "groups of 128" in message


@pytest.mark.parametrize(
    ("name", "expected"),
    [("asymmetric", "symmetric"), ("4bit", "num_bits")],
)
def test_other_schemes_are_refused(
    flexq_pack: Cli, tmp_path: Path, name: str, expected: str
) -> None:
    make(tmp_path / "in", name, torch.float16)
    assert expected in flexq_pack("import", tmp_path / "in", tmp_path / "out", code=3)["error"]
    assert not (tmp_path / "out").exists()


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors")


def test_damaged_checkpoints_are_refused_by_name(flexq_pack: Cli, tmp_path: Path) -> None:
    module = MODULES[0]

    def zero_point(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{module}.weight_zero_point"] = torch.zeros(1, dtype=torch.int32)

    def no_scale(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[f"{module}.weight_scale"]

    def few_scales(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{module}.weight_scale"] = tensors[f"{module}.weight_scale"][:, :1].contiguous()

    def five_to_a_word(tensors: dict[str, torch.Tensor]) -> None:
        words = -(-HIDDEN // 5)
        tensors[f"{module}.weight_packed"] = torch.zeros(INNER, words, dtype=torch.int32)

    def order(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{module}.weight_g_idx"] = torch.zeros(HIDDEN, dtype=torch.int32)

    cases = {
        "zero points": zero_point,
        "weight_scale": no_scale,
        "of shape [384, 2]": few_scales,
        "0.17": five_to_a_word,
        "order": order,
    }
    for number, (expected, change) in enumerate(cases.items()):
        source = tmp_path / f"in{number}"
        make(source, "W6A16", torch.float16)
        rewrite(source, change)
        message = flexq_pack("import", source, tmp_path / "out", code=3)["error"]
        assert expected in message
        assert module in message


def test_int8_codes_out_of_range_are_refused(flexq_pack: Cli, tmp_path: Path) -> None:
    make(tmp_path / "in", "W6A8", torch.float16)

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{MODULES[1]}.weight"][3, 5] = 32

    rewrite(tmp_path / "in", change)
    message = flexq_pack("import", tmp_path / "in", tmp_path / "out", code=3)["error"]
    assert MODULES[1] in message
    assert "32" in message


def test_scales_that_16_bits_cannot_hold_are_refused(flexq_pack: Cli, tmp_path: Path) -> None:
    make(tmp_path / "in", "W6A16", torch.float32)
    message = flexq_pack("import", tmp_path / "in", tmp_path / "out", code=3)["error"]
    assert "F32" in message

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            if name.endswith("weight_scale"):
                tensors[name] = tensors[name].to(torch.float16).to(torch.float32)

    rewrite(tmp_path / "in", change)
    flexq_pack("import", tmp_path / "in", tmp_path / "out")
    before = load_file(tmp_path / "in" / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    for module in MODULES:
        scale = after[f"{module}.weight_scale"]
        assert scale.dtype == torch.float16
        assert same_bits(scale.to(torch.float32), before[f"{module}.weight_scale"])
