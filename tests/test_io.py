"""Files: round trips, laziness, other readers, and faults."""

import errno
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import flexq
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

DTYPES = [
    np.bool_, np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64,
    np.float16, np.float32, np.float64, np.complex64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e5m2,
]  # fmt: skip


@pytest.fixture
def q(rng: np.random.Generator) -> flexq.QTensor:
    return flexq.quantize(rng.standard_normal((6, 172), np.float32))


def test_round_trip(tmp_path: Path, q: flexq.QTensor, rng: np.random.Generator) -> None:
    path = tmp_path / "m.safetensors"
    tensors = {
        "a.weight": q,
        "experts": flexq.quantize(rng.standard_normal((2, 3, 64), np.float32), 32, rule="mse"),
        "scalar": np.array(3, np.int64),
        "empty": np.zeros((0, 4), np.float32),
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    }
    tensors |= {f"t.{np.dtype(dtype).name}": np.ones((2, 3), dtype) for dtype in DTYPES}
    flexq.save_file(tensors, path, metadata={"format": "pt"})
    loaded = flexq.load_file(path)
    assert set(loaded) == set(tensors)
    assert len(loaded) == len(tensors)
    assert "a.weight" in loaded
    assert "a.weight_packed" not in loaded
    assert loaded.metadata["format"] == "pt"
    for name, tensor in tensors.items():
        if isinstance(tensor, flexq.QTensor):
            assert loaded[name] == tensor
            assert pickle.loads(pickle.dumps(loaded[name])) == tensor
        else:
            assert loaded[name].dtype == tensor.dtype
            np.testing.assert_array_equal(loaded[name], tensor)
    assert flexq.verify(path)["intact"]


def test_saving_again_gives_the_same_bytes(tmp_path: Path, q: flexq.QTensor) -> None:
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    flexq.save_file({"w": q, "b": np.ones(3, np.float32)}, first)
    flexq.save_file(flexq.load_file(first), second)
    assert first.read_bytes() == second.read_bytes()


def test_nothing_is_copied(tmp_path: Path, q: flexq.QTensor) -> None:
    path = tmp_path / "m.safetensors"
    flexq.save_file({"w": q, "b": np.ones(1000, np.float32)}, path)
    loaded = flexq.load_file(path)
    b = loaded["b"]
    assert not b.flags.owndata
    assert not b.flags.writeable
    assert np.shares_memory(b, loaded["b"])
    assert np.shares_memory(loaded["w"].packed, loaded["w"].packed)
    del loaded
    path.unlink()
    assert b.sum() == 1000


def test_any_safetensors_reader_opens_our_files(tmp_path: Path, q: flexq.QTensor) -> None:
    path = tmp_path / "m.safetensors"
    flexq.save_file({"w": q, "b": np.arange(3, dtype=np.float32)}, path)
    tensors = safetensors.numpy.load_file(path)
    assert set(tensors) == {"w_packed", "w_scale", "b"}
    np.testing.assert_array_equal(tensors["w_packed"], q.packed)
    np.testing.assert_array_equal(tensors["w_scale"], q.scales)


def test_we_open_the_files_of_others(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    safetensors.numpy.save_file({"x": np.arange(6, dtype=np.int32).reshape(2, 3)}, path)
    np.testing.assert_array_equal(flexq.load_file(path)["x"], [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(flexq.FormatError):
        flexq.verify(path)


def test_mapping_faults(tmp_path: Path, q: flexq.QTensor) -> None:
    path = tmp_path / "m.safetensors"
    flexq.save_file({"w": q}, path)
    with pytest.raises(KeyError, match="nothing"):
        flexq.load_file(path)["nothing"]
    assert 3 not in flexq.load_file(path)


def test_what_cannot_be_saved(tmp_path: Path, q: flexq.QTensor) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(TypeError, match=r"tensor .x.: .*list"):
        flexq.save_file({"x": [1.0]}, path)
    with pytest.raises(ValueError, match="cannot be stored"):
        flexq.save_file({"x": np.array(["text"])}, path)
    with pytest.raises(ValueError, match="w_packed"):
        flexq.save_file({"w_packed": np.ones(3, np.float32), "w": q}, path)
    assert not list(tmp_path.iterdir())


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        flexq.load_file(tmp_path / "none.safetensors")
    assert caught.value.errno == errno.ENOENT
    assert caught.value.filename == str(tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError) as caught:
        flexq.save_file({}, tmp_path / "no" / "folder.safetensors")
    assert caught.value.filename == str(tmp_path / "no" / "folder.safetensors")
    with pytest.raises(FileNotFoundError, match=r"cannot open .*config\.json"):
        flexq.plan(tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 8, 100, -1])
def test_truncated_file(tmp_path: Path, q: flexq.QTensor, keep: int) -> None:
    path = tmp_path / "m.safetensors"
    flexq.save_file({"w": q}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(flexq.FormatError, match=r"m\.safetensors"):
        flexq.load_file(path)


def test_flipped_bit_is_found(tmp_path: Path, q: flexq.QTensor) -> None:
    path = tmp_path / "m.safetensors"
    flexq.save_file({"w": q}, path)
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    report = flexq.verify(path)
    assert not report["intact"]
    assert "w_" in report["files"][0]["faults"][0]


FULL_DISK = """
import resource, signal, sys
import numpy as np, flexq
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    flexq.save_file({"x": np.ones(100_000, np.float32)}, sys.argv[1])
except OSError as error:
    print(type(error).__name__, error.errno)
"""


def test_a_full_disk_is_an_error_that_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["OSError", str(errno.EFBIG)]
    assert not list(tmp_path.iterdir())
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 10_000
