"""`inspect` on anybody's checkpoint: what takes the bytes, and what dense packing would save."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import flexq
import numpy as np
import oracle
import pytest
from safetensors.numpy import save_file

Cli = Callable[..., dict[str, Any]]

N, K = 64, 256
MODULES = [f"model.layers.{i}.mlp.{name}_proj" for i in range(2) for name in ("up", "down")]


def quantized(seed: int) -> oracle.Quantized:
    return oracle.quantize(checkpoints.noise(seed, N, K, dtype=np.float32))


def test_codes_stored_as_int8_are_found(tmp_path: Path) -> None:
    tensors: checkpoints.Tensors = {}
    for i, module in enumerate(MODULES):
        q = quantized(i)
        tensors[f"{module}.weight"] = q.codes
        tensors[f"{module}.weight_scale"] = q.scales
    tensors["model.embed_tokens.weight"] = checkpoints.noise(9, 100, K)
    checkpoints.write(tmp_path / "in", (tensors,), {"model_type": "llama"})
    found = flexq.inspect(tmp_path / "in")
    codes = len(MODULES) * N * K
    by_name = {tensor["name"]: tensor for tensor in found["tensors"]}
    for module in MODULES:
        weight = by_name[f"{module}.weight"]
        assert weight["level_bits"] == 6
        assert weight["bits_per_weight"] == pytest.approx(8.125)
    assert found["causes"]["codes at 6 bits"] == codes * 6 // 8
    assert found["causes"]["padding of codes to bytes"] == codes // 4
    assert found["theory_bytes"] == codes * 6 // 8
    assert found["quantized_bytes"] == codes * 8.125 // 8
    assert "4 tensors store 6-bit codes as int8" in found["findings"][0]
    assert f"saves {codes // 4} bytes" in found["findings"][0]
    assert sum(found["causes"].values()) == found["total_bytes"]
    assert found["total_bytes"] == (tmp_path / "in" / "model.safetensors").stat().st_size


def test_full_int8_is_no_waste(tmp_path: Path) -> None:
    codes = np.arange(-127, 128, dtype=np.int8)
    weight = np.resize(codes, (N, K))
    tensors = {
        "model.layers.0.mlp.up_proj.weight": weight,
        "model.layers.0.mlp.up_proj.weight_scale": np.ones((N, 2), np.float16),
    }
    save_file(tensors, tmp_path / "m.safetensors")
    found = flexq.inspect(tmp_path / "m.safetensors")
    assert found["tensors"][0]["level_bits"] == 8
    assert not any("dense" in text for text in found["findings"])


def test_headers_alone(tmp_path: Path, flexq_pack: Cli) -> None:
    source = checkpoints.write_mixture(tmp_path / "in")
    found = flexq.inspect(source, scan=False)
    assert all(tensor["level_bits"] is None for tensor in found["tensors"])
    assert flexq_pack("inspect", "--headers", source) == found
    assert sum(found["causes"].values()) == found["total_bytes"]


def test_our_own_files_explain_every_byte(tmp_path: Path) -> None:
    source = checkpoints.write_mixture(tmp_path / "in")
    report = flexq.pack(source, tmp_path / "out", preset="full")
    found = flexq.inspect(tmp_path / "out")
    assert found["method"] == "flexq"
    assert found["total_bytes"] == report["total_bytes"] == sum(found["causes"].values())
    assert found["causes"]["headers"] == report["header_bytes"]
    assert found["causes"]["codes at 6 bits"] == report["theory_bytes"]


def w6a8_of_the_package(folder: Path, format: str | None = None) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("compressed_tensors")
    from test_compressed_tensors import make

    make(folder, "W6A8", torch.bfloat16, format)


def test_what_compressed_tensors_writes_for_w6a8(tmp_path: Path) -> None:
    w6a8_of_the_package(tmp_path / "in")
    config = json.loads((tmp_path / "in" / "config.json").read_text())["quantization_config"]
    found = flexq.inspect(tmp_path / "in")
    weights = [t for t in found["tensors"] if t["role"] == "linear layers" and t["level_bits"]]
    assert config["format"] == "int-quantized"  # its own choice, whatever the bits
    assert {t["level_bits"] for t in weights if "int8" in t["storage"].lower()} == {6}
    codes = sum(int(np.prod(t["shape"])) for t in weights if "int8" in t["storage"].lower())
    assert codes == 4 * 256 * 384
    assert found["config_bits"] == 6
    assert found["theory_bytes"] == codes * 6 // 8
    assert found["quantized_bytes"] == codes * 8.125 // 8
    assert "4 tensors store 6-bit codes as int8" in found["findings"][0]
    assert f"saves {codes // 4} bytes" in found["findings"][0]


def test_the_old_layout_of_five_codes_a_word_is_named(tmp_path: Path) -> None:
    tensors = {}
    for module in MODULES:
        words = -(-K // 5)  # compressed-tensors 0.17: five codes in each int32
        tensors[f"{module}.weight_packed"] = np.zeros((N, words), np.int32)
        tensors[f"{module}.weight_scale"] = np.ones((N, K // 128), np.float16)
        tensors[f"{module}.weight_shape"] = np.array([N, K], np.int64)
    config = {
        "model_type": "llama",
        "quantization_config": {
            "quant_method": "compressed-tensors", "format": "pack-quantized",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
                "num_bits": 6, "type": "int", "symmetric": True, "strategy": "group",
                "group_size": 128,
            }}},
        },
    }  # fmt: skip
    checkpoints.write(tmp_path / "in", (tensors,), config)
    found = flexq.inspect(tmp_path / "in")
    packed = [t for t in found["tensors"] if t["role"] == "linear layers"]
    assert all("5 codes" in t["storage"] for t in packed), packed
    with pytest.raises(ValueError, match=r"0\.17|5 codes"):
        flexq.import_(tmp_path / "in", tmp_path / "out")
