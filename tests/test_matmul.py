"""Products against the oracle in float64, within the bound of float32 summation."""

import threading

import flexq
import ml_dtypes
import numpy as np
import oracle
import pytest

SHAPES = [
    (1, 3, 5),
    (1, 64, 128),
    (2, 33, 129),
    (5, 17, 172),
    (8, 130, 640),
    (33, 40, 256),
    (1, 1, 1),
]
ROUNDING = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def check(y: np.ndarray, exact: np.ndarray, magnitude: np.ndarray, k: int, dtype: str) -> None:
    # every term and sum is rounded once in float32, the result once to its type
    bound = magnitude * (k + 8) * 2.0**-24 + np.abs(exact) * ROUNDING[dtype] + 6e-8
    assert (np.abs(y.astype(np.float64) - exact) <= bound).all()


@pytest.mark.parametrize("act_group", [128, "row"])
@pytest.mark.parametrize("act_bits", [16, 8, 6])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_within_the_bound(
    rng: np.random.Generator, shape: tuple[int, int, int], act_bits: int, act_group: int | str
) -> None:
    m, n, k = shape
    w = rng.standard_normal((n, k), np.float32) * 0.1
    for dtype, group_size in zip(oracle.FLOAT_TYPES, (128, 32, "row"), strict=True):
        x = rng.standard_normal((m, k), np.float32).astype(oracle.FLOAT_TYPES[dtype])
        q = flexq.quantize(w, group_size)
        y = flexq.matmul(x, q, act_bits=act_bits, act_group=act_group)
        assert y.dtype == oracle.FLOAT_TYPES[dtype]
        exact, magnitude = oracle.matmul(x, q.dequantize(), act_bits, act_group)
        check(y, exact, magnitude, k, dtype)


@pytest.mark.parametrize("act_bits", [16, 8, 6])
def test_threads_change_nothing(rng: np.random.Generator, act_bits: int) -> None:
    q = flexq.quantize(rng.standard_normal((1500, 300), np.float32))
    x = rng.standard_normal((3, 300), np.float32)
    one = flexq.matmul(x, q, act_bits=act_bits, threads=1)
    for threads in (2, 5, None):
        np.testing.assert_array_equal(flexq.matmul(x, q, act_bits=act_bits, threads=threads), one)


@pytest.mark.parametrize("act_bits", [8, 6])
def test_rows_do_not_depend_on_each_other(rng: np.random.Generator, act_bits: int) -> None:
    q = flexq.quantize(rng.standard_normal((50, 256), np.float32))
    x = rng.standard_normal((20, 256), np.float32)
    rows = [flexq.matmul(x[i : i + 1], q, act_bits=act_bits) for i in range(20)]
    np.testing.assert_array_equal(flexq.matmul(x, q, act_bits=act_bits), np.concatenate(rows))


def test_leading_dimensions(rng: np.random.Generator) -> None:
    q = flexq.quantize(rng.standard_normal((7, 64), np.float32))
    x = rng.standard_normal((2, 3, 64), np.float32)
    y = flexq.matmul(x, q, act_bits=8)
    assert y.shape == (2, 3, 7)
    np.testing.assert_array_equal(y[1, 2], flexq.matmul(x[1, 2], q, act_bits=8))
    np.testing.assert_array_equal(flexq.matmul(x[:, ::2], q, act_bits=8), y[:, ::2])
    assert flexq.matmul(x[:0], q).shape == (0, 3, 7)


def test_out(rng: np.random.Generator) -> None:
    q = flexq.quantize(rng.standard_normal((7, 64), np.float32))
    x = rng.standard_normal((3, 64), np.float32)
    for dtype in oracle.FLOAT_TYPES.values():
        out = np.empty((3, 7), dtype)
        assert flexq.matmul(x, q, out=out) is out
        np.testing.assert_array_equal(out, flexq.matmul(x, q, out_dtype=dtype))
    bits = np.empty((3, 7), np.uint16)
    flexq.matmul(x, q, out=bits, out_dtype="bfloat16")
    np.testing.assert_array_equal(
        bits.view(ml_dtypes.bfloat16), flexq.matmul(x, q, out_dtype="bfloat16")
    )


def test_wrong_out(rng: np.random.Generator) -> None:
    q = flexq.quantize(np.ones((64, 64), np.float32))
    x = np.ones((64, 64), np.float32)
    with pytest.raises(ValueError, match=r"expected \[64, 64\], found \[3, 64\]"):
        flexq.matmul(x, q, out=np.empty((3, 64), np.float32))
    with pytest.raises(ValueError, match="expected float16"):
        flexq.matmul(x, q, out=np.empty((64, 64), np.float32), out_dtype="float16")
    with pytest.raises(ValueError, match="C-contiguous"):
        flexq.matmul(x, q, out=np.empty((64, 64), np.float32).T)
    frozen = np.empty((64, 64), np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        flexq.matmul(x, q, out=frozen)
    with pytest.raises(ValueError, match="shares memory"):
        flexq.matmul(x, q, out=x)


def test_bad_activations_make_their_row_nan() -> None:
    q = flexq.quantize(np.ones((4, 128), np.float32))
    x = np.ones((3, 128), np.float32)
    x[1, 7] = np.nan
    y = flexq.matmul(x, q, act_bits=8)
    assert np.isnan(y[1]).all()
    assert np.isfinite(y[[0, 2]]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"act_bits": 7}, "16, 8 or 6"),
        ({"act_group": 64}, "128 or"),
        ({"device": "tpu"}, "device"),
        ({"out_dtype": "int8"}, "dtype int8"),
        ({"threads": 0}, "threads"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    q = flexq.quantize(np.ones((4, 128), np.float32))
    with pytest.raises(ValueError, match=message):
        flexq.matmul(np.ones((1, 128), np.float32), q, **options)


def test_wrong_shapes() -> None:
    q = flexq.quantize(np.ones((4, 128), np.float32))
    with pytest.raises(ValueError, match="expected 128, found 127"):
        flexq.matmul(np.ones((1, 127), np.float32), q)
    with pytest.raises(ValueError, match="no dimension"):
        flexq.matmul(np.float32(1)[...], q)
    with pytest.raises(ValueError, match="dimensions of the weight"):
        flexq.matmul(
            np.ones((1, 128), np.float32), flexq.quantize(np.ones((2, 4, 128), np.float32))
        )


def test_many_threads_share_a_tensor(rng: np.random.Generator) -> None:
    q = flexq.quantize(rng.standard_normal((2000, 256), np.float32))
    x = rng.standard_normal((2, 256), np.float32)
    expected = flexq.matmul(x, q, act_bits=8)
    failures = []

    def work() -> None:
        for _ in range(20):
            if not np.array_equal(flexq.matmul(x, q, act_bits=8), expected):
                failures.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_dense_weight_is_refused_by_name(rng: np.random.Generator) -> None:
    w = rng.standard_normal((20, 128), np.float32)
    with pytest.raises(TypeError, match=r"q: expected a QTensor .*, found ndarray"):
        flexq.matmul(w, w)  # type: ignore[arg-type]


def test_embedding(rng: np.random.Generator) -> None:
    q = flexq.quantize(rng.standard_normal((20, 130), np.float32))
    dense = q.dequantize()
    for dtype in (np.int64, np.int32, np.uint8):
        ids = np.array([[0, 19], [3, 3], [7, 1]], dtype)
        np.testing.assert_array_equal(flexq.embedding(ids, q), dense[ids])
    assert flexq.embedding(ids, q, "bfloat16").dtype == ml_dtypes.bfloat16
    for bad in (-1, 20):
        with pytest.raises(IndexError, match=f"row {bad}"):
            flexq.embedding(np.array([0, bad]), q)
    with pytest.raises(ValueError, match="integers"):
        flexq.embedding(np.array([0.5]), q)
