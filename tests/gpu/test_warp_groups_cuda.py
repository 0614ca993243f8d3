"""Products of many rows on Hopper: every tile, every way to share the K of tiles, rounding."""

import pytest
from flexq import _flexq, cuda

if not cuda.is_available():
    pytest.skip(f"no usable GPU: {cuda.why_not()}", allow_module_level=True)

torch = pytest.importorskip("torch")

from products import TOLERANCE, Weight, error, launched, linear, quantized, stream  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        torch.cuda.is_available() and torch.cuda.get_device_capability() != (9, 0),
        reason="warp-group products are Hopper's",
    ),
]

WAYS = {
    "whole": "splits=1 split_tiles=0",
    "shared": "splits=1 split_tiles={}",
    "cluster": "splits=2",
}
# rows and columns, and those that only 16-bit activations have
TILES = [(32, 128), (32, 192), (64, 128), (64, 192), (128, 128), (128, 192), (176, 128)]
TILES += [(192, 128), (256, 128), (256, 256)]
HALF_ONLY = {(32, 192), (64, 192), (192, 128), (256, 256)}


@pytest.mark.parametrize(
    ("rows", "columns", "way"),
    # two blocks that share activations do not share K, too
    [(*tile, way) for tile in TILES for way in WAYS if way != "cluster" or tile[1] < 256],
)
def test_every_warp_group_launch(rows, columns, way):
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
