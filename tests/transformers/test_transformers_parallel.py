"""Two processes on the CPU share a model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")
pytest.importorskip("transformers", reason="the transformers extra is not installed")

import flexq.transformers  # noqa: E402, F401
from tiny_models import exact, load, logits  # noqa: E402

PROGRAM = Path(__file__).with_name("generate_distributed.py")


def run(directory, result, *options):
    launch = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    done = subprocess.run(
        [*launch, str(PROGRAM), str(directory), str(result), *options],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "preset", "options"),
    [
        ("llama", "full", ()),
        ("llama", "linear", ("join", "distributed")),
        ("mixtral", "linear", ()),
    ],
)
def test_two_processes_equal_one(packed, tmp_path, name, preset, options):
    output = run(packed(name, preset), tmp_path / "logits", *options)
    assert (tmp_path / "logits").exists(), output
    found = torch.load(tmp_path / "logits")
    expected = logits(load(packed(name, preset), config=exact(packed(name, preset))))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_layer_that_cannot_be_split_is_refused_by_name(packed, tmp_path):
    output = run(packed("misaligned"), tmp_path / "logits")
    assert "model.layers.0.mlp.down_proj.weight: 384 columns in groups of 128" in output
    assert not (tmp_path / "logits").exists()


@pytest.mark.slow
def test_quantizing_and_saving_are_for_one_process(dense, packed, tmp_path):
    output = run(dense("llama"), tmp_path / "logits", "quantize")
    assert "quantizing while loading works in one process: pack the model" in output
    output = run(packed("llama"), tmp_path / "saved", "save")
    assert "cannot be saved: load it in one process" in output
    assert not list(tmp_path.iterdir())
