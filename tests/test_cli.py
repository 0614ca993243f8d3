"""`flexq-pack`: what it prints, and what it tells its caller."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import flexq
import numpy as np
import pytest

Cli = Callable[..., dict[str, Any]]

LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16",
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write_mixture(tmp_path_factory.mktemp("cli") / "model")


def run(path: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [path, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("preset", "tensor_bytes", "weights"),
    # 8,030,261,248 weights, 266,240 of them in norms
    [("full", 6_148_497_408, 8_029_995_008), ("linear", 7_445_422_080, 6_979_321_856)],
)
def test_plan_of_llama_3_1_8b(
    flexq_pack: Cli, tmp_path: Path, preset: str, tensor_bytes: int, weights: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    plan = flexq_pack("plan", "--preset", preset, tmp_path / "config.json")
    assert plan["bytes_before"] == 16_060_522_496
    assert plan["tensor_bytes"] == tensor_bytes
    assert plan["total_bytes"] == tensor_bytes + plan["header_bytes"]
    assert plan["quantized"]["weights"] == weights
    assert plan["bits_per_weight"] == 6.125
    assert flexq.plan(tmp_path, preset=preset) == plan


def test_a_plan_from_config_alone_is_what_packing_writes(flexq_pack: Cli, tmp_path: Path) -> None:
    small = LLAMA | {
        "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 3, "vocab_size": 100,
        "num_attention_heads": 6, "num_key_value_heads": 2,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(small))
    plan = flexq_pack("plan", "--preset", "full", tmp_path / "config.json")
    tensors = {
        tensor["name"]: checkpoints.noise(i, *tensor["shape"])
        for i, tensor in enumerate(plan["tensors"])
    }
    source = checkpoints.write(tmp_path / "in", (tensors,), small)
    report = flexq_pack("pack", "--preset", "full", source, tmp_path / "out")
    # the plan is of a file without metadata; this one says {"format": "pt"}
    assert report["tensor_bytes"] == plan["tensor_bytes"]
    assert 0 <= report["header_bytes"] - plan["header_bytes"] <= 64
    on_disk = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert report["total_bytes"] == on_disk


def test_text_for_people(flexq_pack_path: str, source: Path, tmp_path: Path) -> None:
    done = run(flexq_pack_path, "pack", source, tmp_path / "out")
    assert done.returncode == 0
    for line in ("quantized", "kept: routers", "tied: stored once", "coverage", "left out"):
        assert line in done.stdout
    # not a terminal: plain lines, no control characters
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr
    assert "model-00002-of-00002.safetensors" in done.stderr
    quiet = run(flexq_pack_path, "--quiet", "verify", tmp_path / "out")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_json_is_one_object_and_the_same_as_in_python(
    flexq_pack: Cli, source: Path, tmp_path: Path
) -> None:
    by_command = flexq_pack("pack", source, tmp_path / "a")
    in_python = flexq.pack(source, tmp_path / "b")
    for report in (by_command, in_python):
        work = report.pop("work")
        assert set(work) == {
            "total_bytes", "seconds", "threads", "bytes_read", "resumed", "copied", "left_out",
        }  # fmt: skip
        assert work["left_out"] == ["pytorch_model.bin"]
        assert work["copied"] == ["tokenizer.json"]
    assert by_command == in_python
    assert flexq_pack("verify", tmp_path / "a") == flexq.verify(tmp_path / "b")
    inspection = flexq.inspect(tmp_path / "b")
    assert flexq_pack("inspect", tmp_path / "a") == inspection
    floats = flexq_pack("unpack", tmp_path / "a", tmp_path / "floats")
    assert floats["work"]["total_bytes"] > inspection["total_bytes"]


def test_exit_codes(flexq_pack_path: str, flexq_pack: Cli, source: Path, tmp_path: Path) -> None:
    flexq_pack("pack", source, tmp_path / "out")
    shard = tmp_path / "out" / "model-00001-of-00002.safetensors"
    content = bytearray(shard.read_bytes())
    content[-9] ^= 1
    shard.write_bytes(content)
    damaged = flexq_pack("verify", tmp_path / "out", code=1)
    assert not damaged["intact"]
    assert [len(file["faults"]) for file in damaged["files"]] == [1, 0]
    assert "exists already" in flexq_pack("pack", source, tmp_path / "out", code=2)["error"]
    assert (
        "nothing"
        in flexq_pack("pack", source, tmp_path / "x", "--include=nothing", code=2)["error"]
    )
    assert 'no "flexq" entry' in flexq_pack("verify", source, code=3)["error"]
    assert "cannot open" in flexq_pack("inspect", tmp_path / "none", code=4)["error"]
    assert run(flexq_pack_path, "pack", source).returncode == 2
    assert run(flexq_pack_path, "pack", "--scale-rule=best", source, "x").returncode == 2


def test_help_has_examples(flexq_pack_path: str) -> None:
    top = run(flexq_pack_path, "--help")
    assert top.returncode == 0
    assert "Exit codes" in top.stdout
    commands = ("pack", "plan", "inspect", "verify", "unpack", "export", "import", "completions")
    for command in commands:
        assert command in top.stdout
        done = run(flexq_pack_path, command, "--help")
        assert done.returncode == 0
        assert "flexq-pack" in done.stdout
    assert run(flexq_pack_path, "--version").stdout.split() == ["flexq-pack", flexq.__version__]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions(flexq_pack_path: str, shell: str) -> None:
    done = run(flexq_pack_path, "completions", shell)
    assert done.returncode == 0
    assert "flexq" in done.stdout
    assert "--scale-rule" in done.stdout or "scale-rule" in done.stdout


def test_a_closed_pipe_is_no_failure(flexq_pack_path: str, source: Path) -> None:
    command = f"'{flexq_pack_path}' inspect --tensors '{source}' | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


def test_a_huge_name_and_an_empty_file(flexq_pack: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty.safetensors").write_bytes(b"")
    assert "8 bytes" in flexq_pack("inspect", tmp_path / "empty.safetensors", code=3)["error"]
    (tmp_path / "folder").mkdir()
    assert "folder" in flexq_pack("pack", tmp_path / "folder", tmp_path / "x", code=3)["error"]
    np.zeros(3).tofile(tmp_path / "other.bin")
    assert "other.bin" in flexq_pack("inspect", tmp_path / "other.bin", code=3)["error"]
