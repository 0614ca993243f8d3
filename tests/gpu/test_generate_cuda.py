"""Generation of packed models on an NVIDIA GPU: as `generate` does it, compiled in CUDA graphs."""

import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")
pytest.importorskip("transformers", reason="the transformers extra is not installed")

from flexq.torch import coverage, prepare, quantize_model_  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
    # torch warns about parts of its own while it compiles
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(autouse=True)
def _same_attention():
    """Keeps cuDNN's attention out, whose last bits vary from call to call."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    yield
    torch.backends.cuda.enable_cudnn_sdp(before)


@pytest.fixture(scope="module")
def model():
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=4,
        dtype=torch.bfloat16,
    )
    torch.manual_seed(6)
    dense = LlamaForCausalLM(config).to(torch.bfloat16).eval()
    quantize_model_(dense, preset="full")
    assert coverage(dense).share_dense == 0
    return prepare(dense.cuda())


@pytest.mark.parametrize("dependent", [False, True])
def test_compiled_steps_in_graphs_give_the_logits_of_plain_ones(model, dependent):
    # no padding among it, which generate would not look at
    prompt = torch.arange(1, 1 + 2 * 9, device="cuda").view(2, 9)
    settings = {"max_new_tokens": 24, "do_sample": False, "pad_token_id": 0}
    kept = {"return_dict_in_generate": True, "output_logits": True}
    torch.compiler.reset()
    from torch._inductor import config

    with config.patch({"triton.enable_pdl": dependent}):
        runs = [
            model.generate(prompt, cache_implementation="static", **settings, **kept)
            for _ in range(3)
        ]
    assert torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] == 0
    # the last run replays graphs only
    assert torch.equal(runs[1].sequences, runs[2].sequences)
    assert all(map(torch.equal, runs[1].logits, runs[2].logits))
    plain = model(runs[2].sequences).logits.float()
    found = torch.stack(runs[2].logits, 1).float()
    expected = plain[:, prompt.shape[1] - 1 : -1]
    assert (found - expected).norm() < 0.03 * expected.norm()
