"""Really trained models: what they write and how well they predict, packed and dense."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")
pytest.importorskip("transformers", reason="the transformers extra is not installed")

import flexq  # noqa: E402
import flexq.transformers  # noqa: E402
from flexq._flexq import run_cli  # noqa: E402
from flexq.eval.score import score  # noqa: E402
from flexq.eval.text import load_text  # noqa: E402
from flexq.eval.variant import Build, Variant  # noqa: E402
from flexq.policy import Policy  # noqa: E402
from tiny_models import exact  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer  # noqa: E402

ROOT = Path(__file__).parents[2]


class Scored:
    """A transformers model as `flexq.eval` asks for predictions."""

    def __init__(self, model) -> None:
        self.model = model

    def logits(self, ids):
        with torch.no_grad():
            return self.model(torch.as_tensor(ids).long()).logits.float().numpy()


@pytest.fixture(scope="module", params=["austen", "tinystories"])
def subject(request, tmp_path_factory):
    """A model, its packed form and a text."""
    if request.param == "austen":
        model, text = ROOT / "examples/austen/model", ROOT / "examples/austen/eval.txt"
    else:
        model = ROOT.parent / "shared/data/tinystories-656k"
        text = model / "eval/tinystories.jsonl"
        if not model.is_dir():
            pytest.skip("no ../shared/data beside the repository")
    packed = tmp_path_factory.mktemp(request.param) / "packed"
    assert run_cli(["flexq-pack", "pack", str(model), str(packed), "--preset", "full"]) == 0
    return model, packed, text


def dequantized(packed):
    config = AutoConfig.from_pretrained(packed)
    config.quantization_config["dequantize"] = True
    return AutoModelForCausalLM.from_pretrained(packed, config=exact(packed), dtype=torch.float32)


def test_writes_what_the_dequantized_model_writes(subject):
    _, packed, _ = subject
    model = flexq.transformers.from_pretrained(packed, config=exact(packed), dtype=torch.float32)
    assert flexq.transformers.coverage(model).share_dense == 0
    tokenizer = AutoTokenizer.from_pretrained(packed)
    prompt = tokenizer("Once upon a time there was", return_tensors="pt").input_ids
    texts = [
        tokenizer.decode(m.generate(prompt, max_new_tokens=40, do_sample=False, pad_token_id=0)[0])
        for m in (model, dequantized(packed))
    ]
    assert texts[0] == texts[1]
    assert len(texts[0]) > 60


def test_predicts_as_well_as_the_numpy_interface_and_nearly_as_the_dense_model(subject):
    dense, packed, text = subject
    variant = Variant.parse("w6a16", Policy())
    model = flexq.transformers.from_pretrained(packed, config=exact(packed), dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32)
    scores = score(
        {
            "numpy": Build().model(packed, flexq.load_file(packed), variant),
            "packed": Scored(model),
            "dense": Scored(plain),
        },
        "numpy",
        load_text(text, packed, 2048),
    )
    assert scores["packed"].perplexity == pytest.approx(scores["numpy"].perplexity, rel=1e-3)
    assert scores["packed"].perplexity == pytest.approx(scores["dense"].perplexity, rel=2e-2)
