"""How exact weights are, on trained ones, beside the Q6_K format at its 6.5625 bits."""

import runpy
from collections.abc import Iterator
from pathlib import Path

import flexq
import numpy as np
import pytest
from flexq.eval.checkpoint import to_float32

ROOT = Path(__file__).parent.parent
Q6_K = runpy.run_path(str(ROOT / "benches/accuracy/q6_k.py"))
SHARED = ROOT.parent / "shared/data"
SOURCES = {
    "austen": ROOT / "examples/austen/model",
    "tinystories": SHARED / "tinystories-656k",
    "clip": SHARED / "clip-aesthetic-mlp/model.safetensors",
}


def matrices(path: Path) -> Iterator[np.ndarray]:
    if not path.exists():
        pytest.skip(f"no {path.name} beside the project")
    for tensor in flexq.load_file(path).values():
        if tensor.ndim == 2:
            yield to_float32(tensor)[:512]


@pytest.mark.parametrize("name", SOURCES)
def test_a_setting_of_fewer_bits_is_as_exact_as_q6_k(name: str) -> None:
    theirs, ours, bits, count = 0.0, 0.0, 0, 0
    for w in matrices(SOURCES[name]):
        q = flexq.quantize(w, 32, rule="mse", scale_dtype="pair")
        ours += np.square(q.dequantize() - w, dtype=np.float64).sum()
        theirs += np.square(Q6_K["round_trip"](w) - w, dtype=np.float64).sum()
        bits, count = bits + 8 * q.nbytes, count + w.size
    assert bits / count < 6.502
    assert ours <= theirs


@pytest.mark.parametrize("name", SOURCES)
def test_rules_at_one_size_in_order(name: str) -> None:
    settings = [
        {"rule": "absmax31"},
        {"rule": "absmax32s"},
        {"rule": "mse"},
        {"rule": "mse", "scale_dtype": "pair"},
    ]
    errors = np.zeros(len(settings))
    for w in matrices(SOURCES[name]):
        for i, options in enumerate(settings):
            q = flexq.quantize(w, **options)
            errors[i] += np.square(q.dequantize() - w, dtype=np.float64).sum()
    gains = np.sqrt(errors[1:] / errors[:-1])
    assert (gains < [0.985, 0.985, 0.95]).all()


def test_q6_k_reproduces_what_it_can_hold() -> None:
    rng = np.random.default_rng(2)
    scales = rng.integers(1, 127, (4, 16, 1)) * np.float32(2.0**-12)
    scales[:, 0] = -128 * np.float32(2.0**-12)
    codes = rng.integers(-31, 32, (4, 16, 16))
    codes[..., 0] = -32
    w = (codes * scales).astype(np.float32).reshape(2, 512)
    np.testing.assert_array_equal(Q6_K["round_trip"](w), w)
    assert Q6_K["BITS"] == 6.5625
