"""Files made once from the text of `docs/format.md` are read and written the same for ever."""

import importlib.util
from pathlib import Path

import flexq
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"
SPEC = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
assert SPEC
assert SPEC.loader
make = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make)

NAMES = sorted(path.name for path in GOLDEN.glob("*.safetensors"))


def test_the_script_makes_the_committed_files() -> None:
    files = make.files()
    assert sorted(files) == NAMES
    for name, content in files.items():
        assert content == (GOLDEN / name).read_bytes(), name


@pytest.mark.parametrize("name", NAMES)
def test_we_write_the_same_bytes(name: str, tmp_path: Path) -> None:
    tensors = flexq.load_file(GOLDEN / name)
    metadata = {key: value for key, value in tensors.metadata.items() if key != "flexq"}
    assert set(tensors) == set(make.TENSORS[name])
    # the order in which they are given is part of what is written
    flexq.save_file({key: tensors[key] for key in make.TENSORS[name]}, tmp_path / name, metadata)
    assert (tmp_path / name).read_bytes() == (GOLDEN / name).read_bytes()
    assert flexq.verify(GOLDEN / name)["intact"]


def test_we_quantize_to_the_same_bytes() -> None:
    stored = flexq.load_file(GOLDEN / "every-kind-v1.safetensors")
    weights = {
        "linear.weight": flexq.quantize(make.ramp(3, 172)),
        "row.weight": flexq.quantize(
            make.ramp(2, 70).astype("bfloat16"), "row", rule="mse", scale_dtype="bfloat16"
        ),
        "experts.gate_up_proj": flexq.quantize(
            make.ramp(2, 4, 64).astype(np.float16), 32, rule="absmax31"
        ),
        "zeros.weight": flexq.quantize(np.zeros((2, 256), np.float32), 256),
        "empty.weight": flexq.quantize(np.zeros((0, 128), np.float32), 64),
    }
    for name, q in weights.items():
        assert stored[name] == q, name


def test_the_document_shows_the_smallest_file() -> None:
    dump = make.hex_dump((GOLDEN / "smallest-v1.safetensors").read_bytes())
    assert dump in (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
