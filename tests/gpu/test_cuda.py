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

SHAPES = [(64, 128), (80, 300), (100, 172), (513, 640), (1000, 1000), (1088, 2304)]
TYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2}
TOLERANCE = {torch.float16: 1e-3, torch.bfloat16: 6e-3, torch.float32: 3e-6}


class Weight:
    """Random codes and scales on the GPU, canonical and in device order."""

    def __init__(self, n, k, group, scale_type=torch.float16, q=None):
        self.n, self.k, self.group = n, k, group
        columns = group or k
        self.q = torch.randint(-32, 32, (n, k), dtype=torch.int8) if q is None else q
        self.scales = (torch.rand(n, -(-k // columns)) * 0.02 - 0.01).to(scale_type).cuda()
        self.packed = torch.from_numpy(order.pack(self.q.numpy())).cuda()
        code_bytes, scale_count = _flexq.cuda_sizes(n, k, group)
        self.codes = torch.full((code_bytes,), 255, dtype=torch.uint8, device="cuda")
        self.device_scales = torch.full((scale_count,), torch.nan, dtype=scale_type, device="cuda")
        self.raw = (
            self.codes.data_ptr(),
            self.device_scales.data_ptr(),
            TYPES[scale_type],
            n,
            k,
            group,
        )
        _flexq.cuda_repack(0, stream(), (self.packed.data_ptr(), self.scales.data_ptr()), self.raw)

    def dense(self):
        wide = self.scales.double().repeat_interleave(self.group or self.k, 1)[:, : self.k]
        return self.q.cuda().double() * wide


def stream():
    return torch.cuda.current_stream().cuda_stream


def linear(weight, x, out_type, act_bits=16, per_row=False, bias=None, kernel=None):
    y = torch.full((len(x), weight.n), torch.nan, dtype=out_type, device="cuda")
    raw_x = (x.data_ptr(), TYPES[x.dtype], len(x), x.stride(0))
    size, _ = _flexq.cuda_workspace(0, weight.raw, len(x), TYPES[x.dtype], act_bits, per_row)
    if kernel is not None:
        _, size = _flexq.cuda_choice(0, weight.raw, raw_x, act_bits, per_row, kernel)
    workspace = torch.full((size,), 255, dtype=torch.uint8, device="cuda")
    workspace[: 1 << 18] = 0  # counters; the rest may hold anything
    raw_bias = None if bias is None else (bias.data_ptr(), TYPES[bias.dtype])
    for _ in range(2):  # the second one finds the counters as the first one left them
        previous = y.clone()
        _flexq.cuda_linear(
            0,
            stream(),
            weight.raw,
            raw_x,
            raw_bias,
            (y.data_ptr(), TYPES[out_type]),
            act_bits,
            per_row,
            (workspace.data_ptr(), size),
            kernel,
        )
    torch.cuda.synchronize()
    assert torch.equal(y, previous), "two runs differ"
    return y


def launched(weight, x, act_bits, per_row, kernel, times):
    """Outputs, in single precision, of launches one after the other on the current stream."""
    raw_x = (x.data_ptr(), TYPES[x.dtype], len(x), x.stride(0))
    _, size = _flexq.cuda_choice(0, weight.raw, raw_x, act_bits, per_row, kernel)
    workspace = torch.zeros(size, dtype=torch.uint8, device="cuda")
    outputs = torch.full((times, len(x), weight.n), torch.nan, device="cuda")
    for y in outputs:
        raw_y = (y.data_ptr(), TYPES[y.dtype])
        space = (workspace.data_ptr(), size)
        _flexq.cuda_linear(
            0, stream(), weight.raw, raw_x, None, raw_y, act_bits, per_row, space, kernel
        )
    return list(outputs)


def quantized(x, limit, per_row):
    m, k = x.shape
    width = k if per_row else 128
    padded = torch.zeros(m, -(-k // width) * width, device="cuda")
    padded[:, :k] = x.float()
    blocks = padded.view(m, -1, width)
    # a division of tensors: by a number, torch multiplies with its inverse
    scale = blocks.abs().amax(-1, keepdim=True) / torch.full((1, 1, 1), limit, device="cuda")
    q = torch.where(scale > 0, blocks / scale, 0.0).round().clamp(-limit, limit)
    return (q.double() * scale.double()).view(m, -1)[:, :k]


def error(y, reference):
    return float((y.double() - reference).norm() / reference.norm())


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


WAYS = {
    "whole": "splits=1 split_tiles=0",
    "shared": "splits=1 split_tiles={}",
    "cluster": "splits=2",
}
# rows and columns of tiles that only 16-bit activations have
HALF_ONLY = {(32, 192), (64, 192), (192, 128), (256, 256)}


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() != (9, 0),
    reason="warp-group products are Hopper's",
)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (32, 128),
        (32, 192),
        (64, 128),
        (64, 192),
        (128, 128),
        (128, 192),
        (176, 128),
        (192, 128),
        (256, 128),
        (256, 256),
    ],
)
def test_every_warp_group_launch(rows, columns, way):
    if columns == 256 and way == "cluster":
        return  # its cluster shares activations instead
    n, k, m = 1000, 1288, 200
    w = Weight(n, k, 128)
    tiles = -(-m // rows) * -(-n // columns)
    kernel = f"hopper rows={rows} columns={columns} {WAYS[way].format(tiles)}"
    x = torch.randn(m, k, device="cuda")
    for x_type, bound in ((torch.float16, 1e-3), (torch.bfloat16, 6e-3)):
        half = x.to(x_type)
        y = linear(w, half, torch.float32, 16, False, kernel=kernel)
        exact = rows <= 64  # larger tiles round weights to 16 bits
        assert error(y, half.double() @ w.dense().T) < (
            TOLERANCE[torch.float32] if exact else bound
        )
    if (rows, columns) not in HALF_ONLY:
        for per_row in (False, True):
            y = linear(w, x.half(), torch.float32, 8, per_row, kernel=kernel)
            values = quantized(x.half(), 127, per_row)
            assert error(y, values @ w.dense().T) < TOLERANCE[torch.float32]


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() != (9, 0),
    reason="warp-group products are Hopper's",
)
@pytest.mark.parametrize("scale_type", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize(
    ("rows", "columns"), [(32, 128), (64, 128), (128, 128), (128, 192), (176, 128), (256, 128)]
)
def test_sums_at_their_bounds(rows, columns, per_row, scale_type):
    """The largest codes, of one sign or of both."""
    n, k, m = 1000, 1288, 600
    q = torch.full((n, k), -32, dtype=torch.int8)
    q[1::3] = 31
    q[2::3] = torch.randint(0, 2, (len(q[2::3]), k), dtype=torch.int8) * 63 - 32
    w = Weight(n, k, 128, scale_type, q)
    x = torch.ones(m, k, device="cuda", dtype=torch.float16)
    x[: m // 2 : 2] = -1
    x[m // 2 :] = torch.randint(0, 2, (m - m // 2, k), device="cuda") * 2 - 1
    values = quantized(x, 127, per_row)
    for out_type in (torch.float32, torch.float16):
        kernel = f"hopper rows={rows} columns={columns}"
        y = linear(w, x, out_type, 8, per_row, kernel=kernel)
        assert error(y, values @ w.dense().T) < TOLERANCE[out_type]


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() != (9, 0),
    reason="warp-group products are Hopper's",
)
@pytest.mark.parametrize("signs", ["one", "both"])
@pytest.mark.parametrize("way", WAYS)
def test_sums_that_are_rounded_near(way, signs):
    """Output of 16 bits beside that of 32, whose sums are exact: its own rounding, and little."""
    n, k, m = 1000, 11016, 700
    w = Weight(n, k, 128)
    if signs == "one":
        w.scales.abs_()
        _flexq.cuda_repack(0, stream(), (w.packed.data_ptr(), w.scales.data_ptr()), w.raw)
    x = torch.randn(m, k, device="cuda").half()
    x[1] = 0
    x[2, 77] = 1000  # the other codes are 0, but for few
    kernel = f"hopper rows=256 columns=128 {WAYS[way].format(-(-m // 256) * -(-n // 128))}"
    exact = linear(w, x, torch.float32, 8, True, kernel=kernel).double()
    size = exact.pow(2).mean(1, keepdim=True).sqrt()
    for out_type, unit in ((torch.float16, 2**-11), (torch.bfloat16, 2**-8)):
        y = linear(w, x, out_type, 8, True, kernel=kernel)
        assert (y[1] == 0).all()
        near = torch.full_like(size, 6e-4)
        near[2] = 4e-3
        assert ((y.double() - exact).abs() <= unit * exact.abs() + near * size).all()
        cuda.exact_sums(True)
        try:
            y = linear(w, x, out_type, 8, True, kernel=kernel)
        finally:
            cuda.exact_sums(False)
        assert torch.equal(y, exact.to(out_type))


# Tiles that round weights make them in one step where all scales of a tile are below 2^-6.
# Products with unit vectors show them.
@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() != (9, 0),
    reason="warp-group products are Hopper's",
)
@pytest.mark.parametrize("scale_type", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("large", [(), (2**-6,), (2**-6, 0.75, 1000.0)], ids=len)
@pytest.mark.parametrize(
    ("rows", "columns"),
    [(128, 128), (128, 192), (176, 128), (192, 128), (256, 128), (256, 256)],
)
def test_weights_are_rounded_once(rows, columns, large, scale_type):
    n, k, m = 1000, 1160, 300
    w = Weight(n, k, 128, scale_type)
    below = 2**-6 - 2**-14  # the largest of either type
    small = torch.tensor([0, 2**-24, -(2**-20), 3 * 2**-16, 0.0029, -0.0117, below, -below])
    scales = small[torch.randint(len(small), w.scales.shape)]
    for i, scale in enumerate(large):  # in some tiles, first and last columns among them
        scales[200 + 300 * i, (0, 4, -1)[i]] = scale
    w.scales.copy_(scales.to(scale_type))
    _flexq.cuda_repack(0, stream(), (w.packed.data_ptr(), w.scales.data_ptr()), w.raw)
    x = torch.zeros(m, k, device="cuda", dtype=torch.float16)
    column = torch.randperm(k, device="cuda")[:m]
    x[torch.arange(m, device="cuda"), column] = 1
    y = linear(w, x, torch.float32, kernel=f"hopper rows={rows} columns={columns}")
    assert torch.equal(y, w.dense().half().float()[:, column].T)


# The K of tiles is dealt out in ranges: fewer tiles than workers, some more, nearly twice as
# many, and with tiles that are dealt out whole after them.
@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() != (9, 0),
    reason="warp-group products are Hopper's",
)
@pytest.mark.parametrize("tiles", [60, 100, 160, 260, 400])
@pytest.mark.parametrize(
    ("rows", "columns"), [(32, 128), (64, 192), (128, 192), (176, 128), (256, 128), (256, 256)]
)
def test_shared_tiles(rows, columns, tiles):
    multiprocessors = torch.cuda.get_device_properties(0).multi_processor_count
    workers = multiprocessors // (columns // 256 + 1)
    k, n, m = 1160, columns * tiles // 20 - 40, 20 * rows - 3
    split = tiles if tiles < workers else tiles % workers + workers
    w = Weight(n, k, 128)
    x = torch.randn(m, k, device="cuda").half()
    kernel = f"hopper rows={rows} columns={columns} split_tiles={split}"
    ints = (rows, columns) not in HALF_ONLY
    precisions = [(16, False)] + [(8, row) for row in (False, True) if ints]
    for act_bits, per_row in precisions:
        y = linear(w, x, torch.float32, act_bits, per_row, kernel=kernel)
        values = quantized(x, 127, per_row) if act_bits == 8 else x.double()
        bound = 1e-3 if act_bits == 16 else TOLERANCE[torch.float32]
        assert error(y, values @ w.dense().T) < bound
        for _ in range(20):
            assert torch.equal(y, linear(w, x, torch.float32, act_bits, per_row, kernel=kernel))


# The same number of workers shares each tile, the last of which adds the sums of all.
@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() != (9, 0),
    reason="warp-group products are Hopper's",
)
@pytest.mark.parametrize("sharers", [2, 3, 4, 9])
@pytest.mark.parametrize(
    ("rows", "columns"),
    [(32, 128), (32, 192), (64, 128), (64, 192), (128, 128), (256, 128)],
)
def test_tiles_shared_by_as_many(rows, columns, sharers):
    multiprocessors = torch.cuda.get_device_properties(0).multi_processor_count
    tiles = multiprocessors // sharers
    k, n, m = 2184, columns * tiles - 40, rows - 3
    x = torch.randn(m, k, device="cuda").half()
    grid = multiprocessors // tiles * tiles
    kernel = f"hopper rows={rows} columns={columns} split_tiles={tiles} grid={grid}"
    w = Weight(n, k, 128)
    ints = (rows, columns) not in HALF_ONLY
    for act_bits, per_row in [(16, False)] + [(8, row) for row in (False, True) if ints]:
        y = linear(w, x, torch.float32, act_bits, per_row, kernel=kernel)
        values = quantized(x, 127, per_row) if act_bits == 8 else x.double()
        bound = 1e-3 if act_bits == 16 else TOLERANCE[torch.float32]
        assert error(y, values @ w.dense().T) < bound
        # Launches on two streams take each other's multiprocessors: some workers start late.
        streams = [torch.cuda.Stream() for _ in range(2)]
        torch.cuda.synchronize()
        for _ in range(10):
            results = []
            for side in streams:
                with torch.cuda.stream(side):
                    results += launched(w, x, act_bits, per_row, kernel, 8)
            torch.cuda.synchronize()
            assert all(torch.equal(y, again) for again in results)


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
