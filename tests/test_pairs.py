"""Two scales in one word: words, codes and values are those of the oracle."""

import itertools
from pathlib import Path

import flexq
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

SHAPES = [(1, 1), (3, 17), (2, 31), (4, 128), (2, 172), (3, 257)]


def check(w: np.ndarray, group_size: int, rule: str) -> None:
    q = flexq.quantize(w, group_size, rule=rule, scale_dtype="pair")
    expected = oracle.quantize_pairs(w, group_size, rule)
    np.testing.assert_array_equal(q.scales, expected.words)
    np.testing.assert_array_equal(q.codes(), expected.codes)
    np.testing.assert_array_equal(q.packed, oracle.pack(expected.codes))
    np.testing.assert_array_equal(q.dequantize(), expected.dequantize(group_size))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rule", oracle.RULES)
def test_equal_to_the_oracle(rng: np.random.Generator, rule: str, shape: tuple[int, int]) -> None:
    w = (rng.standard_normal(shape) * 0.02).astype(np.float32)
    for dtype, group in itertools.product(oracle.FLOAT_TYPES.values(), oracle.PAIRED_GROUPS):
        check(w.astype(dtype), group, rule)


@pytest.mark.parametrize("rule", oracle.RULES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_equal_to_the_oracle_on_any_numbers(rule: str, data: st.DataObject) -> None:
    shape = data.draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=40))
    # up to what a pair can hold, down to zeros and subnormals
    elements = st.floats(-60, 60, width=32, allow_subnormal=True)
    w = data.draw(arrays.arrays(np.float32, shape, elements=elements))
    check(w, data.draw(st.sampled_from(oracle.PAIRED_GROUPS)), rule)


@pytest.mark.parametrize("rule", oracle.RULES)
def test_halves_of_very_different_size(rule: str) -> None:
    w = np.ones((6, 32), np.float32)
    w[0, :16] = 1e-3
    w[1, 16:] = -1e-3
    w[2, :16] = 0
    w[3, 16:] = 0
    w[4] = 0
    w[5] = 1e-7  # no scale as small as that
    check(w, 32, rule)
    q = flexq.quantize(w, 32, rule=rule, scale_dtype="pair")
    assert not q.codes()[4:].any()
    # the larger half is never the worse for its neighbour
    np.testing.assert_allclose(q.dequantize()[:4].max(1), 1, rtol=0.02)


@pytest.mark.parametrize("group", oracle.PAIRED_GROUPS)
def test_finer_at_the_same_size(rng: np.random.Generator, group: int) -> None:
    w = rng.standard_normal((64, 1024), np.float32)
    one = flexq.quantize(w, group, rule="mse")
    two = flexq.quantize(w, group, rule="mse", scale_dtype="pair")
    assert two.nbytes == one.nbytes
    errors = [np.square(q.dequantize() - w).mean() for q in (two, one)]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize("act_bits", [16, 8, 6])
@pytest.mark.parametrize("rows", [1, 4, 5, 20])
def test_products(rng: np.random.Generator, rows: int, act_bits: int) -> None:
    w, x = (rng.standard_normal((n, 300), np.float32) for n in (70, rows))
    for group in oracle.PAIRED_GROUPS:
        q = flexq.quantize(w, group, scale_dtype="pair")
        exact, size = oracle.matmul(x, q.dequantize(), act_bits)
        y = flexq.matmul(x, q, act_bits=act_bits)
        assert (np.abs(y - exact) <= 300 * np.finfo(np.float32).eps * size).all()


def test_files_keep_pairs(rng: np.random.Generator, tmp_path: Path) -> None:
    q = flexq.quantize(rng.standard_normal((6, 100), np.float32), 64, scale_dtype="pair")
    flexq.save_file({"w": q}, tmp_path / "w.safetensors")
    (back,) = flexq.load_file(tmp_path / "w.safetensors").values()
    assert back == q
    assert back.scale_dtype == "pair"
    assert flexq.verify(tmp_path / "w.safetensors")["intact"]
    assert back[2:4] == q[2:4]
    parts = flexq.QTensor.from_parts(q.packed, q.scales, q.shape, 64, scale_dtype="pair")
    assert parts == q


def test_unpaired_weights_are_the_same(rng: np.random.Generator) -> None:
    w = rng.standard_normal((2, 5, 172), np.float32)
    for group in (64, 128):
        q = flexq.quantize(w, group, scale_dtype="pair")
        single = q.unpaired()
        assert (single.group_size, single.scale_dtype) == (group // 2, "float16")
        np.testing.assert_array_equal(single.dequantize(), q.dequantize())
        assert single.unpaired() == single
    with pytest.raises(ValueError, match="32, 64, 128, 256, row"):
        flexq.quantize(w, 32, scale_dtype="pair").unpaired()


@pytest.mark.parametrize("group", [256, "row"])
def test_groups_without_halves_are_refused(group: int | str) -> None:
    with pytest.raises(ValueError, match="group size of paired scales"):
        flexq.quantize(np.ones((2, 2), np.float32), group, scale_dtype="pair")


def test_scales_beyond_a_pair_are_refused() -> None:
    w = np.ones((2, 128), np.float32)
    w[1, 70] = 64
    with pytest.raises(ValueError, match=r"row 1, group 0: scale .* does not fit PAIR"):
        flexq.quantize(w, scale_dtype="pair")


def test_packed_checkpoints(tmp_path: Path) -> None:
    model = Path(__file__).parents[1] / "examples/austen/model"
    options = {"group_size": 32, "rule": "mse", "scale_dtype": "pair"}
    report = flexq.pack(model, tmp_path / "packed", preset="full", **options)
    assert report["quantized"]["bits_per_weight"] == 6.5
    assert flexq.verify(tmp_path / "packed")["intact"]
    name = "model.layers.0.mlp.up_proj.weight"
    w = flexq.load_file(model)[name]
    q = flexq.quantize(w, 32, rule="mse", scale_dtype="pair", dtype="bfloat16")
    assert flexq.load_file(tmp_path / "packed")[name] == q
    flexq.unpack(tmp_path / "packed", tmp_path / "floats", dtype="float32")
    np.testing.assert_array_equal(flexq.load_file(tmp_path / "floats")[name], q.dequantize())
    with pytest.raises(ValueError, match="two scales in a word, which only flexq reads"):
        flexq.export(tmp_path / "packed", tmp_path / "exported")
