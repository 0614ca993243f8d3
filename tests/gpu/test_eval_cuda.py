"""`flexq eval --device cuda` beside the same on the CPU."""

import json
from pathlib import Path

import pytest
from flexq import cuda
from flexq.__main__ import main

if not cuda.is_available():
    pytest.skip(f"no usable GPU: {cuda.why_not()}", allow_module_level=True)

pytestmark = pytest.mark.gpu
MODEL = Path(__file__).parents[2] / "examples/austen/model"


def test_perplexities_of_gpu_and_cpu_agree(capsys):
    def perplexities(device):
        options = ["--limit", "2000", "--variants", "float,w6a16,w6a8", "--device", device]
        assert main(["eval", str(MODEL), *options, "--json"]) == 0
        return {k: v["perplexity"] for k, v in json.loads(capsys.readouterr().out).items()}

    cpu = perplexities("cpu")
    # rounding amplifies last bits: 2,000 tokens average out less than a whole text does
    assert perplexities("cuda") == pytest.approx(cpu, rel=2e-3)
