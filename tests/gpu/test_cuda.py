"""Products, reordering and lookups on a GPU against NumPy and float64."""

import itertools
from functools import cache

import flexq
import numpy as np
import order
import pytest
from flexq import _flexq, cuda

if not cuda.is_available():
    pytest.skip(f"no usable GPU: {cuda.why_not()}", allow_module_level=True)

pytestmark = pytest.mark.gpu
torch = pytest.importorskip("torch")

from products import TOLERANCE, TYPES, Weight, error, linear, quantized, stream  # noqa: E402

SHAPES = [(64, 128), (80, 300), (100, 172), (513, 640), (1000, 1000), (1088, 2304)]


@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("group", [32, 128, 256, 0])
def test_order_and_back(n, k, group):
    w = Weight(n, k, group)
    segment = min(group, 128) or 128
    assert (w.codes.cpu().numpy().view(np.uint32) == order.device_order(w.q.numpy())).all()
    scales = order.device_scales(w.scales.cpu().numpy(), k, group or k, segment)
    assert (w.device_scales.cpu().numpy() == scales.reshape(-1)).all()
    packed, back = torch.zeros_like(w.packed), torch.zeros_like(w.scales)
    _flexq.cuda_restore(0, stream(), w.raw, (packed.data_ptr(), back.data_ptr()))
    assert torch.equal(packed, w.packed)
    assert torch.equal(back, w.scales)


@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("dtype", TYPES)
def test_dequantize_and_lookup(n, k, dtype):
    w = Weight(n, k, 128)
    expected = w.dense().float().to(dtype)
    y = torch.full((n, k), torch.nan, dtype=dtype, device="cuda")
    _flexq.cuda_dequantize(0, stream(), w.raw, (y.data_ptr(), TYPES[dtype]))
    assert torch.equal(y, expected)
    rows = torch.tensor([n - 1, 0, n, -1], device="cuda")
    y = torch.zeros((4, k), dtype=dtype, device="cuda")
    _flexq.cuda_embedding(0, stream(), w.raw, (rows.data_ptr(), 4), (y.data_ptr(), TYPES[dtype]))
    assert torch.equal(y[:2], expected[rows[:2]])
    assert y[2:].isnan().all()


@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("m", [1, 3, 8, 9, 16, 17, 24, 33, 64, 100, 128, 200, 1000])
@pytest.mark.parametrize("group", [32, 64, 128, 0])
def test_linear(n, k, m, group):
    w = Weight(n, k, group, torch.bfloat16 if m % 2 else torch.float16)
    dense = w.dense()
    for x_type in (torch.float16, torch.bfloat16):
        x = torch.randn(m, k, device="cuda").to(x_type)
        bias = torch.randn(n, device="cuda").to(x_type)
        for act_bits, per_row in ((16, False), (8, False), (8, True), (6, False)):
            limit = {16: None, 8: 127, 6: 31}[act_bits]
            values = x.double() if limit is None else quantized(x, limit, per_row)
            reference = values @ dense.T + bias.double()
            for out_type in {torch.float32, x_type}:
                y = linear(w, x, out_type, act_bits, per_row, bias)
                # Hopper rounds the weights of a product of many 16-bit rows to the type of x
                rounds = act_bits == 16 and m > 16
                bound = max(TOLERANCE[out_type], TOLERANCE[x_type] if rounds else 0)
                assert error(y, reference) < bound, (x_type, act_bits, per_row)


KERNELS = [
    "small splits=1 room=1",
    "small splits=3 cluster=0 stages=1",
    "small splits=5 cluster=1 stages=2",
    "small splits=8 cluster=1 blocks=2 room=2",
    "streamed",
    "streamed stages=1",
    "streamed stages=6 blocks=2",
    "streamed splits=2",
    "streamed splits=5 stages=2",
    "teams",
    "teams stages=1 x_stages=2",
    "teams splits=5 stages=2",
    "teams blocks=2 room=1",
    "teams splits=2 x_stages=3",
    "planes",
    "planes splits=4 cluster=1",
    "tile",
    "tile splits=3",
    "hopper",
]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("m", [1, 5, 8, 13, 32, 70])
def test_every_family(kernel, m):
    n, k = 1000, 1288
    w = Weight(n, k, 128)
    x = torch.randn(m, k, device="cuda").half()
    for act_bits, per_row in ((16, False), (8, False), (8, True), (6, False)):
        family = kernel.split()[0]
        most = {"small": 32, "streamed": 8, "teams": 32, "planes": 8}.get(family, m)
        if family == "streamed" and per_row:
            most = 0  # a warp sees 128 columns at a time
        least = 9 if family == "teams" and act_bits == 16 else 1
        if not least <= m <= most or (act_bits == 16 and family == "planes"):
            with pytest.raises(ValueError, match="does not fit"):
                linear(w, x, torch.float32, act_bits, per_row, kernel=kernel)
            continue
        y = linear(w, x, torch.float32, act_bits, per_row, kernel=kernel)
        values = x.double()
        if act_bits != 16:
            values = quantized(x, {8: 127, 6: 31}[act_bits], per_row)
        bound = 1e-3 if kernel == "hopper" and act_bits == 16 else TOLERANCE[torch.float32]
        assert error(y, values @ w.dense().T) < bound


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (9, 0),
    reason="bulk copies are Hopper's",
)
@pytest.mark.parametrize(("n", "k"), [(2112, 8192), (4096, 4096), (5120, 5144), (9000, 1288)])
@pytest.mark.parametrize("m", [1, 7, 8, 12, 16, 27, 32])
def test_streamed_activations_are_read_in_time(n, k, m):
    """Where memory cannot keep up with warps and where it can: cold weights, then cached ones."""
    w = Weight(n, k, 128)
    dense = w.dense()
    for x_type in (torch.float16, torch.bfloat16):
        x = torch.randn(m, k + 8, device="cuda").to(x_type)[:, 8:]
        teams = ("teams", "teams splits=2", "teams splits=2 x_stages=2 room=1")
        streamed = ("streamed splits=1", "streamed splits=2")
        ways = [(kernel, 8) for kernel in teams] + [(kernel, 16) for kernel in teams if m > 8]
        ways += [(kernel, bits) for kernel in streamed for bits in (16, 8) if m <= 8]
        for kernel, act_bits in ways:
            values = x.double() if act_bits == 16 else quantized(x, 127, False)
            first = linear(w, x, torch.float32, act_bits, kernel=kernel)
            assert error(first, values @ dense.T) < TOLERANCE[torch.float32]
            for _ in range(25):
                again = linear(w, x, torch.float32, act_bits, kernel=kernel)
                assert torch.equal(again, first)


@pytest.mark.parametrize("k", [512, 4096, 8192, 11008, 20480, 29568, 32784])
@pytest.mark.parametrize("first", [0, 8, 1])  # column of a wider matrix: aligned twice, then not
@pytest.mark.parametrize(("act_bits", "per_row"), [(8, False), (8, True), (6, True)])
def test_launches_that_quantize(act_bits, per_row, first, k):
    w = Weight(64, k, 128)
    for x_type in (torch.float16, torch.bfloat16):
        x = torch.randn(70, k + 8, device="cuda").to(x_type)[:, first : first + k]
        x[1] = 0
        x[2] = torch.arange(k, device="cuda").to(x_type) / 2  # many half-way quotients
        x[3, ::3] = -x[3].abs().max()
        y = linear(w, x, torch.float32, act_bits, per_row, kernel="tile")
        values = quantized(x, {8: 127, 6: 31}[act_bits], per_row)
        assert error(y, values @ w.dense().T) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("kernel", ["small splits=2", "planes splits=2"])
@pytest.mark.parametrize("x_type", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("act_bits", "per_row"), [(8, False), (8, True), (6, True)])
def test_fused_quantization_is_the_same(kernel, x_type, act_bits, per_row):
    w = Weight(513, 2320, 128)
    x = torch.randn(7, 2320, device="cuda").to(x_type)
    x[1] = 0
    x[2] *= 1e-6
    x[3, ::3] = x[3, 0]  # many quotients of exactly one
    x[4] = torch.arange(2320, device="cuda").to(x_type) / 2  # and many half-way ones
    first = linear(w, x, torch.float32, act_bits, per_row, kernel=f"{kernel} fused=0")
    second = linear(w, x, torch.float32, act_bits, per_row, kernel=f"{kernel} fused=1")
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("fast", "expected auto, small"),
        ("small split=2", "no option split"),
        ("tile splits", "name=number"),
        ("planes", "does not fit"),
    ],
)
def test_requests_that_cannot_be_met(kernel, message):
    q = flexq.quantize(np.ones((64, 128), np.float32)).to("cuda")
    with pytest.raises(ValueError, match=message):
        flexq.matmul(np.ones((1, 128), np.float16), q, kernel=kernel)


def test_no_rows():
    w = Weight(64, 128, 128)
    assert linear(w, torch.zeros(0, 128, device="cuda").half(), torch.float32).shape == (0, 64)


@pytest.mark.parametrize("m", [1, 16, 64])
def test_weights_without_rows_or_columns(m):
    q = flexq.quantize(np.ones((0, 128), np.float32)).to("cuda")
    assert flexq.matmul(np.ones((m, 128), np.float16), q).shape == (m, 0)
    q = flexq.quantize(np.ones((64, 0), np.float32)).to("cuda")
    with pytest.raises(ValueError, match="K: expected at least 1 on a GPU"):
        flexq.matmul(np.ones((m, 0), np.float16), q)


# many rows; one token's two experts; experts of more rows than a launch of few takes at once, some
# without any; more experts than a warp has lanes; rows past the last end, which stay as they are
ENDS = [
    ([0, 3, 73, 74, 204], 204),
    ([0, 0, 1, 1, 2, 2], 2),
    ([0, 9, 9, 26, 26], 26),
    ([i // 3 for i in range(40)], 13),
    ([1, 1, 4], 6),
]


@cache
def experts(n, k, group):
    return [Weight(n, k, group) for _ in range(40)]


@pytest.mark.parametrize(("ends", "rows"), ENDS, ids=["many", "one", "few", "experts", "others"])
@pytest.mark.parametrize(
    ("n", "k", "x_type"),
    [
        (320, 640, torch.float16),
        (320, 640, torch.bfloat16),
        (100, 172, torch.bfloat16),
        (64, 14336, torch.float16),
    ],
    ids=str,
)
@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize(("act_bits", "per_row"), [(16, False), (8, False), (8, True)])
def test_experts(act_bits, per_row, x_type, group, n, k, ends, rows):
    weights = experts(n, k, group)[: len(ends)]
    codes = torch.cat([w.codes for w in weights])
    scales = torch.cat([w.device_scales for w in weights])
    x = torch.randn(rows, k, device="cuda").to(x_type)
    values = x.double() if act_bits == 16 else quantized(x, 127, per_row)
    parts = zip([0, *ends[:-1]], ends, weights, strict=True)
    reference = torch.cat([values[a:b] @ w.dense().T for a, b, w in parts])
    y = torch.full((rows, n), torch.nan, device="cuda")
    raw = (codes.data_ptr(), scales.data_ptr(), 0, n, k, group)
    size, _ = _flexq.cuda_workspace(0, raw, rows, TYPES[x_type], act_bits, per_row, len(ends))
    workspace = torch.zeros(size, dtype=torch.uint8, device="cuda")
    on_gpu = torch.tensor(ends, dtype=torch.int32, device="cuda")
    for _ in range(2):  # the workspace is as it was
        _flexq.cuda_grouped_linear(
            0,
            stream(),
            raw,
            (on_gpu.data_ptr(), len(ends)),
            (x.data_ptr(), TYPES[x_type], rows, k),
            (y.data_ptr(), 2),
            act_bits,
            per_row,
            (workspace.data_ptr(), size),
        )
    assert error(y[: ends[-1]], reference) < TOLERANCE[torch.float32]
    assert y[ends[-1] :].isnan().all()


@pytest.mark.parametrize(("m", "act_bits"), [(1, 16), (4, 8), (16, 8), (40, 16), (300, 8)])
@pytest.mark.parametrize("n", [1024, 2304])
def test_chains_of_launches(n, m, act_bits):
    w = Weight(n, n, 128)
    x = torch.randn(m, n, device="cuda").half()
    size, _ = _flexq.cuda_workspace(0, w.raw, m, 0, act_bits, False)
    workspace = torch.zeros(size, dtype=torch.uint8, device="cuda")
    results = []
    for late in (False, True, False):
        _flexq.cuda_trigger_late(late)
        y = [x, *(torch.full_like(x, torch.nan) for _ in range(6))]
        for i, (a, b) in enumerate(itertools.pairwise(y)):
            _flexq.cuda_linear(
                0,
                stream(),
                w.raw,
                (a.data_ptr(), 0, m, n),
                None,
                (b.data_ptr(), 0),
                act_bits,
                False,
                (workspace.data_ptr(), size),
            )
            if i % 2:
                b.mul_(0.05)  # a kernel of torch in between
        results.append(y[-1])
    assert results[0].isfinite().all()
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("m", [1, 7, 64])
def test_numpy(m):
    rng = np.random.default_rng(m)
    q = flexq.quantize(rng.standard_normal((300, 512), dtype=np.float32))
    x = rng.standard_normal((2, m, 512)).astype(np.float16)
    for act_bits in (16, 8, 6):
        y = flexq.matmul(x, q.to("cuda"), act_bits=act_bits, out_dtype=np.float32)
        cpu = flexq.matmul(x, q, act_bits=act_bits, out_dtype=np.float32)
        # Hopper rounds the weights of a product of many 16-bit rows to half precision
        bound = 1e-3 if act_bits == 16 and m > 16 else 1e-5
        assert np.linalg.norm(y - cpu) < bound * np.linalg.norm(cpu)
    on_gpu = flexq.matmul(x, q.to("cuda"))
    for weight, device in ((q, "cuda"), (q.to("cuda"), "cuda"), (q.to("cuda"), "cuda:0")):
        assert np.array_equal(flexq.matmul(x, weight, device=device), on_gpu)
    tile = flexq.matmul(x, q, device="cuda", act_bits=8, kernel="tile", out_dtype=np.float32)
    cpu = flexq.matmul(x, q, act_bits=8, out_dtype=np.float32)
    assert np.linalg.norm(tile - cpu) < 1e-5 * np.linalg.norm(cpu)


def test_wrong_arguments():
    q = flexq.quantize(np.ones((64, 128), np.float32)).to("cuda")
    with pytest.raises(ValueError, match="float16 or bfloat16"):
        flexq.matmul(np.ones((1, 128), np.float32), q)
    with pytest.raises(ValueError, match="expected 128, found 64"):
        flexq.matmul(np.ones((1, 64), np.float16), q)
    with pytest.raises(ValueError, match="asked for cpu, but q is on cuda:0"):
        flexq.matmul(np.ones((1, 128), np.float16), q, device="cpu")
    with pytest.raises(ValueError, match="GPU 99"):
        flexq.quantize(np.ones((64, 128), np.float32)).to("cuda:99")
