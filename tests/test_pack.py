"""Whole checkpoints: packed, opened, unpacked, resumed and refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import checkpoints
import flexq
import numpy as np
import oracle
import pytest
from safetensors.numpy import load_file, save_file


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write_mixture(tmp_path_factory.mktemp("source") / "model")


@pytest.fixture(scope="module")
def packed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("packed") / "out"
    flexq.pack(source, output)
    return output


def test_what_is_quantized_and_what_is_copied(source: Path, packed: Path) -> None:
    before = {k: v for shard in checkpoints.mixture() for k, v in shard.items()}
    after = flexq.load_file(packed)
    assert set(after) == set(before) - {"lm_head.weight"}  # tied, and stored once
    for name, tensor in after.items():
        original = before[name]
        if name in checkpoints.MIXTURE_QUANTIZED:
            assert isinstance(tensor, flexq.QTensor)
            rows = original.reshape(-1, original.shape[-1])
            expected = oracle.quantize(rows)
            assert tensor.shape == original.shape
            np.testing.assert_array_equal(tensor.codes().reshape(rows.shape), expected.codes)
            np.testing.assert_array_equal(
                tensor.packed.reshape(len(rows), -1), oracle.pack(expected.codes)
            )
        else:
            assert tensor.dtype == original.dtype
            assert tensor.tobytes() == original.tobytes()
    assert flexq.verify(packed)["intact"]


def test_the_directory_is_one_that_loaders_know(source: Path, packed: Path) -> None:
    assert {path.name for path in packed.iterdir()} == {
        "README.md", "config.json", "tokenizer.json", "model.safetensors.index.json",
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    }  # fmt: skip
    assert (packed / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    index = json.loads((packed / "model.safetensors.index.json").read_text())
    stored = {
        key: name for name in set(index["weight_map"].values()) for key in load_file(packed / name)
    }
    assert index["weight_map"] == stored
    before = json.loads((source / "config.json").read_text())
    config = json.loads((packed / "config.json").read_text())
    quantization = config.pop("quantization_config")
    assert config == before
    assert quantization["quant_method"] == "flexq"
    assert "model.layers.0.mlp.gate" in quantization["modules_to_not_convert"]
    assert "import flexq.transformers" in (packed / "README.md").read_text()


def test_the_report_adds_up(source: Path, tmp_path: Path) -> None:
    report = flexq.pack(source, tmp_path / "out")
    quantized = [t["name"] for t in report["tensors"] if t["fate"] == "quantized"]
    assert set(quantized) == checkpoints.MIXTURE_QUANTIZED
    parts = [report["quantized"], report["tied"], *report["kept"].values()]
    assert sum(part["bytes_after"] for part in parts) == report["tensor_bytes"]
    assert sum(part["bytes_before"] for part in parts) == report["bytes_before"]
    on_disk = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors"))
    assert report["total_bytes"] == on_disk == report["tensor_bytes"] + report["header_bytes"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"preset": "full"},
        {"group_size": 64, "rule": "absmax31", "scale_dtype": "bfloat16"},
        {"group_size": "row", "rule": "mse"},
        {"include": ["model.visual.blocks.0.attn.qkv"], "exclude": ["down_proj"]},
        {"exclude": [r"re:.*layers\.1\."]},
    ],
    ids=str,
)
def test_options_threads_and_plan(source: Path, tmp_path: Path, options: dict[str, object]) -> None:
    flexq.pack(source, tmp_path / "one", threads=1, **options)
    flexq.pack(source, tmp_path / "three", threads=3, **options)
    assert checkpoints.digest(tmp_path / "one") == checkpoints.digest(tmp_path / "three")
    names = set()
    for name, tensor in flexq.load_file(tmp_path / "one").items():
        if isinstance(tensor, flexq.QTensor):
            names.add(name)
            assert str(tensor.group_size) == str(options.get("group_size", 128))
    expected = set(checkpoints.MIXTURE_QUANTIZED)
    if options.get("preset") == "full":
        expected |= {"model.embed_tokens.weight"}
    if "include" in options:
        expected |= {"model.visual.blocks.0.attn.qkv.weight"}
        expected -= {n for n in expected if "down_proj" in n}
    elif "exclude" in options:
        expected -= {n for n in expected if "layers.1." in n}
    assert names == expected
    on_disk = sum(path.stat().st_size for path in (tmp_path / "one").glob("*.safetensors"))
    assert flexq.plan(source, **options)["total_bytes"] == on_disk


def test_a_file_becomes_a_file(source: Path, tmp_path: Path) -> None:
    shard = source / "model-00002-of-00002.safetensors"
    flexq.pack(shard, tmp_path / "one.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["one.safetensors"]
    tensors = flexq.load_file(tmp_path / "one.safetensors")
    assert isinstance(tensors["model.layers.1.self_attn.q_proj.weight"], flexq.QTensor)
    assert tensors.metadata["format"] == "pt"


@pytest.mark.parametrize("dtype", [None, "float32", "float16", "bfloat16"])
def test_unpack_gives_the_floats(packed: Path, tmp_path: Path, dtype: str | None) -> None:
    flexq.unpack(packed, tmp_path / "floats", dtype=dtype)
    floats, stored = flexq.load_file(tmp_path / "floats"), flexq.load_file(packed)
    assert set(floats) == set(stored)
    for name, tensor in stored.items():
        if isinstance(tensor, flexq.QTensor):
            wanted = dtype or tensor.dtype
            np.testing.assert_array_equal(floats[name], tensor.dequantize(wanted))
            assert floats[name].dtype == wanted
        else:
            np.testing.assert_array_equal(floats[name], tensor)
    assert "quantization_config" not in json.loads((tmp_path / "floats/config.json").read_text())


def test_a_head_that_differs_is_not_tied(tmp_path: Path) -> None:
    first, second = checkpoints.mixture()
    second["lm_head.weight"] = second["lm_head.weight"].copy()
    second["lm_head.weight"][0, 0] += 1
    source = checkpoints.write(tmp_path / "in", (first, second), {"tie_word_embeddings": True})
    flexq.pack(source, tmp_path / "out", preset="full")
    after = flexq.load_file(tmp_path / "out")
    assert isinstance(after["lm_head.weight"], flexq.QTensor)
    assert after["lm_head.weight"] != after["model.embed_tokens.weight"]


def test_the_input_is_left_alone(source: Path, tmp_path: Path) -> None:
    before = checkpoints.digest(source)
    for output in (source, source / "inside", source.parent):
        with pytest.raises(ValueError, match="input"):
            flexq.pack(source, output, force=True)
    link = tmp_path / "link"
    link.symlink_to(source)
    with pytest.raises(ValueError, match="output and input are the same"):
        flexq.pack(source, link, force=True)
    assert checkpoints.digest(source) == before


def test_an_output_is_replaced_only_by_force(source: Path, packed: Path, tmp_path: Path) -> None:
    flexq.pack(source, tmp_path / "out")
    before = checkpoints.digest(tmp_path / "out")
    with pytest.raises(ValueError, match="output exists already"):
        flexq.pack(source, tmp_path / "out", rule="mse")
    assert checkpoints.digest(tmp_path / "out") == before
    flexq.pack(source, tmp_path / "out", rule="mse", force=True)
    assert checkpoints.digest(tmp_path / "out") != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": ["nothing"]}, 'include pattern "nothing" matches no tensor'),
        ({"exclude": ["re:nothing.*"]}, 're:nothing.*" matches no tensor'),
        ({"include": ["re:("]}, "pattern"),
        ({"preset": "everything"}, "preset"),
        ({"policy": "none.json"}, "none.json"),
        ({"exclude": ["weight", "re:.*"]}, "no tensor to quantize"),
        ({"threads": -2}, "threads"),
    ],
)
def test_wrong_options(
    source: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises((ValueError, OSError), match="(?s)" + message.replace("(", r"\(")):
        flexq.pack(source, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    first, second = checkpoints.mixture()
    second["model.layers.1.mlp.down_proj.weight"][95, 383] = value
    source = checkpoints.write(tmp_path / "in", (first, second), {})
    with pytest.raises(
        flexq.NonFiniteError, match=r"model\.layers\.1\.mlp\.down_proj\.weight.*row 95, column 383"
    ):
        flexq.pack(source, tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()
    assert not list((tmp_path / "out").glob(".*tmp*"))
    # the caller may ask to keep that tensor as it is
    flexq.pack(source, tmp_path / "out", exclude=["layers.1.mlp.down_proj"], force=True)
    assert flexq.verify(tmp_path / "out")["intact"]


def test_packing_what_is_packed(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="already quantized"):
        flexq.pack(packed, tmp_path / "out")
    with pytest.raises(ValueError, match="not in the format of flexq"):
        flexq.unpack(tmp_path_with_floats(tmp_path), tmp_path / "out")


def tmp_path_with_floats(tmp_path: Path) -> Path:
    return checkpoints.write_mixture(tmp_path / "floats")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("../escape.safetensors", "escape"),
        ("/etc/hostname", "hostname"),
        ("missing.safetensors", "missing"),
        (7, "index"),
    ],
)
def test_an_index_that_leads_astray(tmp_path: Path, entry: object, message: str) -> None:
    source = checkpoints.write_mixture(tmp_path / "in")
    save_file({"x": np.zeros(1, np.float32)}, tmp_path / "escape.safetensors")
    path = source / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = entry
    path.write_text(json.dumps(index))
    with pytest.raises((ValueError, OSError), match=message):
        flexq.pack(source, tmp_path / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission(source: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        flexq.pack(source, tmp_path / "out")


def test_an_output_below_a_file(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        flexq.pack(source, tmp_path / "file" / "out")
    with pytest.raises(ValueError, match="output is a file"):
        flexq.pack(source, tmp_path / "file", force=True)


def test_progress_and_stopping(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    flexq.pack(source, tmp_path / "out", progress=lambda *done: seen.append(done), threads=1)
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 0

    def stop(done: int, total: int) -> None:
        if done:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        flexq.pack(source, tmp_path / "stopped", progress=stop)
    assert not (tmp_path / "stopped" / "config.json").exists()
    flexq.pack(source, tmp_path / "stopped")
    expected = checkpoints.digest(tmp_path / "out")
    assert checkpoints.digest(tmp_path / "stopped") == expected


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four shards that take long enough to be killed between them."""
    shards = tuple(
        {f"model.layers.{i}.mlp.up_proj.weight": checkpoints.noise(i, 2048, 4096)} for i in range(4)
    )
    return checkpoints.write(tmp_path_factory.mktemp("large") / "in", shards, {})


@pytest.mark.parametrize("when", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_stopped_is_taken_up(
    large: Path, tmp_path: Path, when: signal.Signals, flexq_pack_path: str
) -> None:
    flexq.pack(large, tmp_path / "whole", rule="mse")
    output = tmp_path / "out"
    command = [
        flexq_pack_path, "pack", "--scale-rule=mse", "--threads=1", str(large), str(output),
    ]  # fmt: skip
    # plain kernels take a second for each file, and write the same bytes
    process = subprocess.Popen(
        command,
        env=os.environ | {"FLEXQ_ISA": "scalar"},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list(output.glob("model-00001*")):
        assert process.poll() is None, "it ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(when)
    # a shell reports the signals as 130 and 137
    assert process.wait(60) == -when
    finished = list(output.glob("model-*.safetensors"))
    assert 0 < len(finished) < 4
    assert not (output / "config.json").exists()
    times = {path.name: path.stat().st_mtime_ns for path in finished}
    with pytest.raises(ValueError, match="unfinished run with other options"):
        flexq.pack(large, output)
    report = flexq.pack(large, output, rule="mse")
    assert report["bits_per_weight"] == 6.125
    for name, then in times.items():
        assert (output / name).stat().st_mtime_ns == then, f"{name} was written again"
    assert checkpoints.digest(output) == checkpoints.digest(tmp_path / "whole")


def test_a_finished_shard_that_was_damaged_is_made_again(large: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        flexq.pack(large, tmp_path / "out", progress=stop, threads=1)
    shard = tmp_path / "out" / "model-00001-of-00004.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1000] ^= 4
    shard.write_bytes(content)
    flexq.pack(large, tmp_path / "out")
    assert flexq.verify(tmp_path / "out")["intact"]


FULL_DISK = """
import resource, signal, sys, flexq
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    flexq.pack(sys.argv[1], sys.argv[2])
except OSError as error:
    print(type(error).__name__, error.errno)
"""


def test_a_full_disk(source: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(source), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("OSError"), done.stderr
    assert not list((tmp_path / "out").glob("*.safetensors"))
    assert not list((tmp_path / "out").glob(".*tmp*"))
    flexq.pack(source, tmp_path / "out")
    assert flexq.verify(tmp_path / "out")["intact"]


# whoever runs the tests in the background may have told all its children to ignore SIGINT
CTRL_C = """
import os, signal, sys, threading, flexq
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    while True:
        flexq.pack(sys.argv[1], sys.argv[2], rule="mse", threads=1, force=True)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_control_c_in_python(large: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CTRL_C, str(large), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "interrupted"
    assert not list((tmp_path / "out").glob(".*tmp*"))
