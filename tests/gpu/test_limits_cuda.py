"""Products on a GPU at the limits of what they take: sizes, types, graphs of other rows."""

import itertools

import pytest
from flexq import _flexq, cuda

if not cuda.is_available():
    pytest.skip(f"no usable GPU: {cuda.why_not()}", allow_module_level=True)

pytestmark = pytest.mark.gpu
torch = pytest.importorskip("torch")

from products import TOLERANCE, TYPES, Weight, error, linear, quantized, stream  # noqa: E402

HALVES = (torch.float16, torch.bfloat16)


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(6)


def recorded(launch):
    """A CUDA graph of a launch that has run before."""
    launch()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch()
    return graph


def test_info():
    gpu, known = cuda.info()[0], torch.cuda.get_device_properties(0)
    assert gpu.name == known.name
    assert gpu.capability == (known.major, known.minor)
    assert (gpu.multiprocessors, gpu.l2) == (known.multi_processor_count, known.L2_cache_size)
    assert gpu.memory == known.total_memory


@pytest.mark.parametrize("bias_type", [None, *TYPES], ids=str)
@pytest.mark.parametrize("out_type", TYPES, ids=str)
@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 129), (65, 1157)])
def test_odd_sizes_and_every_type(n, k, out_type, bias_type):
    w = Weight(n, k, 128)
    bias = None if bias_type is None else torch.randn(n, device="cuda").to(bias_type)
    for x_type, m in itertools.product(HALVES, (3, 9, 40, 300)):
        x = torch.randn(m, k, device="cuda").to(x_type)
        for act_bits, per_row in ((16, False), (8, False), (8, True)):
            values = x.double() if act_bits == 16 else quantized(x, 127, per_row)
            reference = values @ w.dense().T
            if bias is not None:
                reference += bias.double()
            y = linear(w, x, out_type, act_bits, per_row, bias)
            # Hopper rounds the weights of a product of many 16-bit rows to the type of x
            rounds = act_bits == 16 and m > 16
            bound = max(TOLERANCE[out_type], TOLERANCE[x_type] if rounds else 0)
            assert error(y, reference) < bound, (x_type, m, act_bits, per_row)


@pytest.mark.parametrize(
    ("m", "n", "k"), [(17_000, 128_256, 128), (70_000, 64, 32_768)], ids=["results", "activations"]
)
def test_more_than_two_billion(m, n, k):
    """Numbers whose count no 32-bit integer holds; the last rows tell."""
    if torch.cuda.mem_get_info()[0] < 30e9:
        pytest.skip("needs 30 GB")
    w = Weight(n, k, 128)
    dense = w.dense()
    x = torch.randn(m, k, dtype=torch.float16, device="cuda")
    families = ["tile", "hopper"] if torch.cuda.get_device_capability() == (9, 0) else ["tile"]
    for family, (act_bits, per_row) in itertools.product(families, ((16, False), (8, True))):
        y = linear(w, x, torch.float16, act_bits, per_row, kernel=family)
        for rows in (slice(50), slice(-50, None)):
            values = x[rows].double() if act_bits == 16 else quantized(x[rows], 127, per_row)
            assert error(y[rows], values @ dense.T) < TOLERANCE[torch.float16], (family, act_bits)


@pytest.mark.parametrize("out_type", TYPES, ids=str)
@pytest.mark.parametrize("group", [32, 64, 128, 0])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 129), (65, 1157), (300, 4096)])
def test_weights_again_and_rows_in_any_order(n, k, group, out_type):
    w = Weight(n, k, group, torch.bfloat16)
    numbers = w.dense().float().to(out_type)
    y = torch.full((n * k + 8,), 7.0, dtype=out_type, device="cuda")
    _flexq.cuda_dequantize(0, stream(), w.raw, (y.data_ptr(), TYPES[out_type]))
    assert torch.equal(y[:-8].view(n, k), numbers)
    assert (y[-8:] == 7).all()
    packed, back = torch.full_like(w.packed, 255), torch.zeros_like(w.scales)
    _flexq.cuda_restore(0, stream(), w.raw, (packed.data_ptr(), back.data_ptr()))
    assert torch.equal(packed, w.packed)
    assert torch.equal(back, w.scales)
    rows = torch.randint(-1, n + 1, (333,), device="cuda")
    y = torch.full((len(rows) * k + 8,), 7.0, dtype=out_type, device="cuda")
    to = (y.data_ptr(), TYPES[out_type])
    _flexq.cuda_embedding(0, stream(), w.raw, (rows.data_ptr(), len(rows)), to)
    found, inside = y[:-8].view(-1, k), (rows >= 0) & (rows < n)
    assert torch.equal(found[inside], numbers[rows[inside]])
    assert found[~inside].isnan().all()
    assert (y[-8:] == 7).all()


@pytest.mark.parametrize("m", [1, 16, 40, 300, 1000])
@pytest.mark.parametrize(("act_bits", "per_row"), [(16, False), (8, False), (8, True)])
def test_graphs_multiply_what_is_there_then(m, act_bits, per_row):
    w = Weight(1536, 4096, 128)
    x = torch.randn(m, 4096, device="cuda").half()
    y = torch.empty((m, 1536), dtype=torch.float16, device="cuda")
    size, _ = _flexq.cuda_workspace(0, w.raw, m, 0, act_bits, per_row)
    workspace = torch.zeros(size, dtype=torch.uint8, device="cuda")
    graph = recorded(
        lambda: _flexq.cuda_linear(
            0,
            stream(),
            w.raw,
            (x.data_ptr(), 0, m, 4096),
            None,
            (y.data_ptr(), 0),
            act_bits,
            per_row,
            (workspace.data_ptr(), size),
        )
    )
    for _ in range(2):
        x.normal_()
        y.fill_(torch.nan)
        graph.replay()
        assert torch.equal(y, linear(w, x, torch.float16, act_bits, per_row))


@pytest.mark.parametrize(("rows", "n"), [(13, 320), (204, 100)], ids=["few", "many"])
@pytest.mark.parametrize(("act_bits", "per_row"), [(16, False), (8, False), (8, True)])
@pytest.mark.parametrize("x_type", HALVES, ids=str)
def test_experts_of_a_graph_take_what_rows_there_are(x_type, act_bits, per_row, rows, n):
    k = 640
    weights = [Weight(n, k, 128) for _ in range(5)]
    codes = torch.cat([w.codes for w in weights])
    scales = torch.cat([w.device_scales for w in weights])
    raw = (codes.data_ptr(), scales.data_ptr(), 0, n, k, 128)
    x = torch.randn(rows, k, device="cuda").to(x_type)
    y = torch.empty((rows, n), device="cuda")
    size, _ = _flexq.cuda_workspace(0, raw, rows, TYPES[x_type], act_bits, per_row, len(weights))
    workspace = torch.zeros(size, dtype=torch.uint8, device="cuda")
    ends = torch.full((len(weights),), rows, dtype=torch.int32, device="cuda")
    graph = recorded(
        lambda: _flexq.cuda_grouped_linear(
            0,
            stream(),
            raw,
            (ends.data_ptr(), len(weights)),
            (x.data_ptr(), TYPES[x_type], rows, k),
            (y.data_ptr(), 2),
            act_bits,
            per_row,
            (workspace.data_ptr(), size),
        )
    )
    for shares in ([0, 3, 3, rows - 2, rows], [rows, rows, rows, rows, rows], [1, 2, 3, 4, rows]):
        ends.copy_(torch.tensor(shares))
        x.normal_()
        y.fill_(torch.nan)
        graph.replay()
        values = x.double() if act_bits == 16 else quantized(x, 127, per_row)
        parts = zip([0, *shares[:-1]], shares, weights, strict=True)
        reference = torch.cat([values[a:b] @ w.dense().T for a, b, w in parts])
        assert error(y, reference) < TOLERANCE[torch.float32], shares
