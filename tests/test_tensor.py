"""`QTensor`: what it tells, what it shares, and how it is cut."""

import copy
import gc
import pickle

import flexq
import ml_dtypes
import numpy as np
import oracle
import pytest


@pytest.fixture
def w(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((12, 300), np.float32)


@pytest.fixture
def q(w: np.ndarray) -> flexq.QTensor:
    return flexq.quantize(w)


@pytest.fixture
def experts(rng: np.random.Generator) -> flexq.QTensor:
    return flexq.quantize(rng.standard_normal((3, 5, 128), np.float32))


def test_it_describes_itself(q: flexq.QTensor) -> None:
    assert q.shape == (12, 300)
    assert q.ndim == 2
    assert len(q) == 12
    assert q.dtype == "float32"
    assert q.group_size == 128
    assert q.scale_rule == "absmax32s"
    assert q.scale_dtype == "float16"
    assert q.nbytes == 12 * (225 + 3 * 2)
    assert q.bits_per_weight == q.nbytes * 8 / (12 * 300)
    assert repr(q) == (
        "QTensor(shape=(12, 300), bits_per_weight=6.16, group_size=128, "
        "scale_rule='absmax32s', dtype='float32')"
    )


def test_six_and_an_eighth_bits_at_the_default_group() -> None:
    assert flexq.quantize(np.ones((4, 1024), np.float32)).bits_per_weight == 6.125


def test_codes_and_scales_give_the_dequantized_values(q: flexq.QTensor) -> None:
    codes = q.codes()
    assert codes.dtype == np.int8
    expected = oracle.Quantized(codes, q.scales).dequantize(128)
    np.testing.assert_array_equal(q.dequantize(np.float32), expected)
    np.testing.assert_array_equal(q.packed, oracle.pack(codes))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_dequantize_rounds_to_the_type_asked_for(q: flexq.QTensor, dtype: type) -> None:
    exact = q.dequantize(np.float32)
    rounded = q.dequantize(dtype)
    assert rounded.dtype == dtype
    np.testing.assert_array_equal(rounded, exact.astype(dtype))
    out = np.empty(q.shape, dtype)
    assert q.dequantize(out=out) is out
    np.testing.assert_array_equal(out, rounded)


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_dtypes_go_by_name_too(q: flexq.QTensor, name: str) -> None:
    assert q.dequantize(name).dtype == oracle.FLOAT_TYPES[name]


def test_dequantize_defaults_to_float32(q: flexq.QTensor) -> None:
    assert q.dequantize().dtype == np.float32


def test_bfloat16_scales(w: np.ndarray) -> None:
    q = flexq.quantize(w, scale_dtype="bfloat16")
    assert q.scale_dtype == "bfloat16"
    assert q.scales.dtype == ml_dtypes.bfloat16


def test_views_share_memory_and_keep_it_alive(w: np.ndarray) -> None:
    q = flexq.quantize(w)
    packed, again, scales = q.packed, q.packed, q.scales
    assert np.shares_memory(packed, again)
    assert np.shares_memory(packed, q[3:].packed)
    assert not packed.flags.writeable
    assert not scales.flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        packed.flags.writeable = True
    before = packed.copy()
    del q, again
    gc.collect()
    np.testing.assert_array_equal(packed, before)


@pytest.mark.parametrize(
    "rows", [slice(2, 5), slice(None), slice(-3, None), slice(5, 2), slice(9, 99)]
)
def test_rows_by_slice(q: flexq.QTensor, rows: slice) -> None:
    part = q[rows]
    assert part.shape == (len(range(12)[rows]), 300)
    np.testing.assert_array_equal(part.dequantize(), q.dequantize()[rows])


def test_experts_by_number_and_slice(experts: flexq.QTensor) -> None:
    dense = experts.dequantize()
    assert experts.shape == (3, 5, 128)
    for e in (0, 2, -1, np.int64(1)):
        assert experts[e].shape == (5, 128)
        np.testing.assert_array_equal(experts[e].dequantize(), dense[e])
    np.testing.assert_array_equal(experts[1:].dequantize(), dense[1:])
    assert [expert.shape for expert in experts] == [(5, 128)] * 3


def test_what_cannot_be_indexed(q: flexq.QTensor, experts: flexq.QTensor) -> None:
    with pytest.raises(TypeError, match="by slice"):
        q[1]
    with pytest.raises(TypeError, match="slice or an expert"):
        q["a"]
    with pytest.raises(ValueError, match="step 1"):
        q[::2]
    with pytest.raises(IndexError, match="expert 3 of 3"):
        experts[3]


def test_places_that_are_none(q: flexq.QTensor) -> None:
    with pytest.raises(ValueError, match="the weight is there"):
        q.to("cpu")
    with pytest.raises(ValueError, match='unknown device "tpu"'):
        q.to("tpu")


def test_it_does_not_pass_for_an_array(q: flexq.QTensor) -> None:
    with pytest.raises(TypeError, match="dequantize"):
        np.asarray(q)
    with pytest.raises(TypeError, match=r"flexq\.matmul"):
        np.zeros((2, q.shape[1]), np.float32) @ q


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(q: flexq.QTensor, experts: flexq.QTensor, protocol: int) -> None:
    for tensor in (q, experts, flexq.quantize(np.ones((2, 7), np.float16), group_size="row")):
        again = pickle.loads(pickle.dumps(tensor, protocol))
        assert again == tensor
        assert repr(again) == repr(tensor)


def test_copies_are_the_same_object(q: flexq.QTensor) -> None:
    assert copy.copy(q) is q
    assert copy.deepcopy(q) is q


def test_equality(w: np.ndarray, q: flexq.QTensor) -> None:
    assert q == flexq.quantize(w)
    assert q != flexq.quantize(w, group_size=64)
    assert q != flexq.quantize(w, rule="absmax31")
    assert q != q[:-1]
    assert q != "something else"


def test_from_parts(q: flexq.QTensor) -> None:
    again = flexq.QTensor.from_parts(q.packed, q.scales, q.shape)
    assert again == q
    with pytest.raises(ValueError, match="packed codes: expected 2700, found 2475"):
        flexq.QTensor.from_parts(q.packed[1:], q.scales, q.shape)
    with pytest.raises(ValueError, match="scales: expected 72, found 66"):
        flexq.QTensor.from_parts(q.packed, q.scales[1:], q.shape)
    with pytest.raises(ValueError, match="expected uint8"):
        flexq.QTensor.from_parts(q.packed.astype(np.int8), q.scales, q.shape)
    with pytest.raises(ValueError, match="expected float16"):
        flexq.QTensor.from_parts(q.packed, q.scales.astype(np.float32), q.shape)
    with pytest.raises(ValueError, match="dimensions"):
        flexq.QTensor.from_parts(q.packed, q.scales, (300,))
