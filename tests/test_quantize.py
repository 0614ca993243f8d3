"""Codes, scales and bytes are those of the oracle, for every type, rule, group and shape."""

import itertools

import flexq
import ml_dtypes
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

SHAPES = [
    (1, 1),
    (3, 2),
    (2, 3),
    (5, 31),
    (4, 128),
    (3, 129),
    (2, 172),
    (7, 255),
    (2, 257),
    (2, 640),
]


def check(w: np.ndarray, group_size: int | str, rule: str, scale_dtype: str) -> None:
    q = flexq.quantize(w, group_size, rule=rule, scale_dtype=scale_dtype)
    expected = oracle.quantize(w, group_size, rule, scale_dtype)
    np.testing.assert_array_equal(q.scales.view(np.uint16), expected.scales.view(np.uint16))
    np.testing.assert_array_equal(q.codes(), expected.codes)
    np.testing.assert_array_equal(q.packed, oracle.pack(expected.codes))
    np.testing.assert_array_equal(q.dequantize(), expected.dequantize(group_size))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rule", oracle.RULES)
def test_equal_to_the_oracle(rng: np.random.Generator, rule: str, shape: tuple[int, int]) -> None:
    w = (rng.standard_normal(shape) * 0.02).astype(np.float32)
    for dtype, group, scale in itertools.product(
        oracle.FLOAT_TYPES.values(), oracle.GROUPS, ("float16", "bfloat16")
    ):
        check(w.astype(dtype), group, rule, scale)


@pytest.mark.parametrize("rule", oracle.RULES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_equal_to_the_oracle_on_any_numbers(rule: str, data: st.DataObject) -> None:
    shape = data.draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=40))
    # up to what a float16 scale can hold, down to zeros and subnormals
    elements = st.floats(-1e6, 1e6, width=32, allow_subnormal=True)
    w = data.draw(arrays.arrays(np.float32, shape, elements=elements))
    check(w, data.draw(st.sampled_from(oracle.GROUPS)), rule, "float16")


@pytest.mark.parametrize("rule", oracle.RULES)
def test_special_groups(rule: str) -> None:
    w = np.zeros((6, 128), np.float32)
    w[1] = -1.0
    w[2, ::2], w[2, 1::2] = 3.0, -3.0
    w[3, 5] = 1e-9  # its scale is zero in float16
    w[4] = np.linspace(-1, 1, 128)
    w[5] = 65504 * 31 / 2
    check(w, 128, rule, "float16")
    q = flexq.quantize(w, rule=rule)
    assert not q.codes()[[0, 3]].any()
    assert not q.scales[[0, 3]].any()


def test_the_signed_rule_uses_all_levels() -> None:
    w = np.linspace(-1, 0.9, 64, dtype=np.float32)[None]
    codes = flexq.quantize(w, rule="absmax32s").codes()
    assert codes.min() == -32


def test_every_rule_improves_on_the_one_before(rng: np.random.Generator) -> None:
    w = rng.standard_normal((64, 1024), np.float32)
    errors = [
        np.square(flexq.quantize(w, rule=rule).dequantize() - w).mean() for rule in oracle.RULES
    ]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("rule", oracle.RULES)
def test_threads_change_nothing(rng: np.random.Generator, rule: str) -> None:
    w = rng.standard_normal((1500, 300), np.float32)
    one = flexq.quantize(w, rule=rule, threads=1)
    for threads in (2, 3, 7, None):
        assert flexq.quantize(w, rule=rule, threads=threads) == one


def test_bfloat16_as_bits(rng: np.random.Generator) -> None:
    w = rng.standard_normal((4, 130), np.float32).astype(ml_dtypes.bfloat16)
    assert flexq.quantize(w.view(np.uint16), dtype="bfloat16") == flexq.quantize(w)
    with pytest.raises(ValueError, match="uint16"):
        flexq.quantize(w.view(np.uint16))


def test_any_memory_order(rng: np.random.Generator) -> None:
    w = rng.standard_normal((6, 8, 128), np.float32)
    assert flexq.quantize(w[:, ::2]) == flexq.quantize(w[:, ::2].copy())
    assert flexq.quantize(w[0].T) == flexq.quantize(w[0].T.copy())


def test_experts_are_quantized_row_by_row(rng: np.random.Generator) -> None:
    w = rng.standard_normal((3, 5, 140), np.float32)
    q = flexq.quantize(w)
    for e in range(3):
        assert q[e] == flexq.quantize(w[e])


@pytest.mark.parametrize("shape", [(0, 128), (4, 0), (0, 0), (0, 3, 128)], ids=str)
def test_empty_weights(shape: tuple[int, ...]) -> None:
    q = flexq.quantize(np.zeros(shape, np.float32))
    assert q.shape == shape
    assert q.dequantize().shape == shape
    assert q.nbytes == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_weights_are_named(value: float) -> None:
    w = np.ones((300, 200), np.float32)
    w[280, 131] = value
    w[290, 0] = value
    with pytest.raises(flexq.NonFiniteError, match=r"^row 280, column 131"):
        flexq.quantize(w)
    assert issubclass(flexq.NonFiniteError, ValueError)


def test_scales_beyond_float16_are_refused() -> None:
    w = np.full((2, 128), 1e8, np.float32)
    with pytest.raises(ValueError, match=r"^row 0, group 0"):
        flexq.quantize(w)
    check(w, 128, "absmax31", "bfloat16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": 100}, "group size"),
        ({"group_size": "column"}, "group size"),
        ({"rule": "minmax"}, "scale rule"),
        ({"scale_dtype": "float32"}, "scale_dtype"),
        ({"dtype": "float16"}, "expected float16"),
        ({"dtype": "int8"}, "dtype int8"),
        ({"threads": 0}, "threads"),
        ({"threads": -1}, "threads"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flexq.quantize(np.ones((2, 2), np.float32), **options)


@pytest.mark.parametrize("dtype", [np.float64, np.int8, np.complex64, ">f4"])
def test_wrong_dtypes(dtype: object) -> None:
    with pytest.raises(ValueError, match="expected float32, float16 or bfloat16"):
        flexq.quantize(np.ones((2, 2), dtype))


@pytest.mark.parametrize("shape", [(), (4,), (1, 2, 3, 4)], ids=str)
def test_wrong_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="2 or 3 dimensions"):
        flexq.quantize(np.ones(shape, np.float32))


def test_only_arrays() -> None:
    with pytest.raises(TypeError):
        flexq.quantize([[1.0, 2.0]])
