"""The torch operators on an NVIDIA GPU against those on the CPU."""

import copy

import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from flexq.torch import (  # noqa: E402
    FlexQEmbedding,
    FlexQExperts,
    FlexQLinear,
    Scheme,
    prepare,
    quantize_model_,
)
from torch import nn  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]
TOLERANCE = {torch.float16: 3e-3, torch.bfloat16: 2e-2, torch.float32: 1e-3}


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(6)


def assert_close(found, expected, dtype):
    bound = TOLERANCE[dtype] * expected.abs().max()
    assert (found.cpu().float() - expected.float()).abs().max() <= bound


def on_gpu(module):
    return prepare(copy.deepcopy(module).cuda())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("act_bits", [16, 8])
@pytest.mark.parametrize(
    ("rows", "columns", "group"), [(200, 384, 128), (96, 256, 64), (64, 512, 0)]
)
def test_linear(dtype, act_bits, rows, columns, group):
    dense = nn.Linear(columns, rows)
    module = FlexQLinear.from_linear(dense, scheme=Scheme(group), act_bits=act_bits).to(dtype)
    gpu = on_gpu(module)
    assert gpu.weight_packed.dim() == 1
    for m in (0, 1, 5, 17, 70, 300):
        x = torch.randn(m, columns).to(dtype)
        found = gpu(x.cuda())
        assert found.shape == (m, rows)
        if m and (act_bits == 16 or dtype != torch.float32):
            assert_close(found, module(x), dtype)


def test_auto_and_unprepared_weights():
    module = FlexQLinear.from_linear(nn.Linear(256, 128), act_bits=16).half()
    x = torch.randn(9, 256).half()
    assert_close(copy.deepcopy(module).cuda()(x.cuda()), module(x), torch.float16)


def test_inputs_that_do_not_fit_are_refused():
    module = on_gpu(FlexQLinear.from_linear(nn.Linear(256, 128), act_bits=16).half())
    with pytest.raises(ValueError, match="weight of 128 x 512 in device order"):
        module(torch.ones(2, 512).half().cuda())
    with pytest.raises(ValueError, match="found x on cpu"):
        module(torch.ones(2, 256).half())


def test_streams_take_turns_with_the_workspace():
    """Long sums that blocks share through the workspace, on two streams at once."""
    module = on_gpu(FlexQLinear.from_linear(nn.Linear(8192, 512), act_bits=16).half())
    x = torch.randn(40, 8192).half().cuda()
    expected = module(x)
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    found = []
    for _ in range(200):
        for stream in streams:
            with torch.cuda.stream(stream):
                found.append(module(x))
    torch.cuda.synchronize()
    assert all(torch.equal(y, expected) for y in found)


def test_embedding_is_exact():
    module = FlexQEmbedding.from_embedding(nn.Embedding(300, 256)).to(torch.bfloat16)
    tokens = torch.tensor([[0, 299], [7, 7]])
    assert torch.equal(on_gpu(module)(tokens.cuda()).cpu(), module(tokens))


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(4, 256, 128) / 11)
        self.down_proj = nn.Parameter(torch.randn(4, 128, 128) / 11)
        self.act_fn = nn.SiLU()


def test_experts():
    module = FlexQExperts.from_experts(Experts(), act_bits=(16, 16))
    hidden = torch.randn(37, 128).half()
    weights, chosen = torch.randn(37, 4).softmax(-1).topk(2)
    expected = module(hidden, chosen, weights.half())
    found = on_gpu(module)(hidden.cuda(), chosen.cuda(), weights.half().cuda())
    assert_close(found, expected, torch.float16)


def test_the_bytes_of_a_file_come_back():
    model = nn.Sequential(nn.Embedding(70, 256), nn.Linear(256, 200), nn.Linear(200, 70))
    quantize_model_(model, preset="full", include=["0"])
    gpu = on_gpu(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(gpu.state_dict()[name].cpu(), tensor), name
        assert torch.equal(gpu.cpu().state_dict()[name], tensor), name
        gpu = on_gpu(model)


@pytest.mark.parametrize("group", [32, 64, 128])
def test_words_of_two_scales(group):
    scheme = Scheme(group, "mse", torch.uint16)
    module = FlexQLinear.from_linear(nn.Linear(512, 200), scheme=scheme, act_bits=16).half()
    gpu = on_gpu(module)
    # scales of 16 columns have no kernel: torch multiplies
    assert gpu.weight_packed.dim() == (2 if group == 32 else 1)
    for m in (1, 40):
        x = torch.randn(m, 512).half()
        assert_close(gpu(x.cuda()), module(x), torch.float16)
    for name, tensor in module.state_dict().items():
        assert torch.equal(gpu.state_dict()[name].cpu(), tensor), name
    assert torch.equal(gpu.cpu().weight_scale, module.weight_scale)


def test_gradients():
    module = FlexQLinear.from_linear(nn.Linear(256, 128), act_bits=16).half()
    x = torch.randn(3, 256).half()
    expected, found = x.clone().requires_grad_(), x.cuda().requires_grad_()
    module(expected).sum().backward()
    on_gpu(module)(found).sum().backward()
    assert_close(found.grad, expected.grad, torch.float16)


@pytest.mark.parametrize("act_bits", [16, 8])
def test_graphs_record_it(act_bits):
    module = on_gpu(FlexQLinear.from_linear(nn.Linear(512, 256), act_bits=act_bits).half())
    x = torch.randn(4, 512, device="cuda").half()
    stream = torch.cuda.Stream()
    with torch.no_grad(), torch.cuda.stream(stream):
        module(x)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            y = module(x)
        x.copy_(torch.randn(4, 512))
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(y, module(x))
