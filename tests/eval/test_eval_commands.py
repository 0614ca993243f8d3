import json

import flexq
import pytest
from flexq.__main__ import main
from flexq.eval.analyze import analyze
from flexq.eval.evaluate import evaluate
from flexq.eval.sensitivity import recommend
from flexq.eval.variant import Build
from flexq.policy import Policy
from safetensors.numpy import load_file, save_file


@pytest.fixture(scope="module")
def packed(austen, tmp_path_factory):
    """The Austen model packed, with the paper's policy in its config."""
    path = tmp_path_factory.mktemp("packed") / "model"
    flexq.pack(austen, path, preset="full")
    return path


def test_eval_prints_a_table_and_saves_a_chart(austen, capsys, tmp_path):
    chart = tmp_path / "chart.png"
    options = ["--limit", "500", "--variants", "float,w6a16,w4a16", "--chart", str(chart)]
    assert main(["eval", str(austen), *options]) == 0
    out = capsys.readouterr().out
    for word in ("w6a16", "w4a16", "perplexity", "511 tokens"):
        assert word in out
    assert chart.read_bytes()[:4] == b"\x89PNG"


def test_eval_speaks_json(austen, austen_text, capsys):
    options = [
        "--text",
        str(austen_text),
        "--limit",
        "500",
        "--variants",
        "float,w6a8:g64",
        "--json",
    ]
    assert main(["eval", str(austen), *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result) == ["float", "w6a8:g64"]
    assert result["w6a8:g64"]["perplexity"] > 1
    assert 0 < result["w6a8:g64"]["kl"] < 0.01


def test_packed_models_score_as_their_sources(austen, packed, austen_text):
    names = ["float", "w6a16", "w6a8"]
    direct = evaluate(austen, text=austen_text, limit=500, variants=names, build=Build("full"))
    stored = evaluate(packed, text=austen_text, limit=500, variants=names, reference=austen)
    for name in names:
        assert stored[name].loss == direct[name].loss, name


def test_packed_models_without_reference_compare_with_their_own_float_inputs(packed, austen_text):
    assert list(evaluate(packed, text=austen_text, limit=100)) == ["w6a16", "w6a8", "w6ax", "w6a6"]


def test_the_policy_of_a_packed_model_is_obeyed(packed, austen_text, tmp_path):
    config = json.loads((packed / "config.json").read_text())
    results = {}
    for bits in (6, 8):
        config["quantization_config"] |= Policy(bits).to_config()
        (packed / "config.json").write_text(json.dumps(config))
        results[bits] = evaluate(packed, text=austen_text, limit=300)
    assert results[6]["w6ax"].loss == results[6]["w6a6"].loss
    assert results[8]["w6ax"].loss == results[8]["w6a8"].loss


def test_analyze_writes_a_policy_that_eval_reads(austen, capsys, tmp_path):
    policy, chart = tmp_path / "policy.json", tmp_path / "map.png"
    assert main(["analyze", str(austen), "--policy", str(policy), "--chart", str(chart)]) == 0
    assert "from weights" in capsys.readouterr().out
    assert Policy.load(policy).bits("model.layers.0.mlp.down_proj") == 8
    assert Policy.load(policy).act_bits == 6
    assert chart.read_bytes()[:4] == b"\x89PNG"
    options = [
        "--policy",
        str(policy),
        "--variants",
        "float,w6ax,w6a6",
        "--limit",
        "2000",
        "--json",
    ]
    assert main(["eval", str(austen), *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["w6ax"]["kl"] < 0.7 * result["w6a6"]["kl"]


def test_analyze_on_text_reports_every_layer(austen, austen_text, capsys):
    assert (
        main(["analyze", str(austen), "--text", str(austen_text), "--limit", "200", "--json"]) == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert result["source"] == "text"
    assert len(result["layers"]) == 28
    assert all(layer["kl"]["6"] > 0 for layer in result["layers"])


def test_analyze_refuses_packed_models(packed):
    with pytest.raises(ValueError, match="packed already"):
        analyze(packed)


def test_mistakes_are_one_line(austen, capsys, tmp_path):
    assert main(["eval", str(tmp_path)]) == 1
    assert main(["eval", str(austen), "--variants", "w6a7"]) == 1
    assert main(["analyze", str(austen), "--text", str(tmp_path / "none.txt")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert all(line.startswith("error: ") for line in errors)


@pytest.mark.skipif(flexq.cuda.is_available(), reason="has a GPU")
def test_a_gpu_that_is_not_there_is_an_error(austen, capsys):
    assert main(["eval", str(austen), "--device", "cuda"]) == 1
    assert capsys.readouterr().err == f"error: {flexq.cuda.why_not()}\n"


def test_damaged_weights_are_an_error(austen, capsys, tmp_path):
    for file in austen.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:1000])
    (tmp_path / "config.json").write_bytes((austen / "config.json").read_bytes())
    assert main(["eval", str(tmp_path)]) == 1
    assert "error: " in capsys.readouterr().err


def test_a_missing_tensor_is_named(austen, tmp_path):
    tensors = load_file(austen / "model.safetensors")
    del tensors["model.layers.3.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((austen / name).read_bytes())
    with pytest.raises(KeyError, match=r"model\.layers\.3\.mlp\.up_proj\.weight"):
        evaluate(tmp_path, limit=10)


@pytest.mark.slow
def test_demo(austen, austen_text, capsys, tmp_path):
    options = ["--text", str(austen_text), "--tokens", "1000", "--out", str(tmp_path)]
    assert main(["demo", str(austen), *options]) == 0
    out = capsys.readouterr().out
    for word in ("bits per weight", "6.125", "w6ax", "down_proj", "It is a truth universally"):
        assert word in out
    assert (tmp_path / "demo.png").read_bytes()[:4] == b"\x89PNG"


class TestPromises:
    """What flexq promises, on little text; `benches/accuracy/promises.py` takes all of it.

    The perplexity of so few tokens moves by chance, so losses are compared by divergence.
    """

    @pytest.fixture(scope="class", params=["austen", "tinystories"])
    @classmethod
    def scores(cls, request, austen, austen_text):
        model, text = austen, austen_text
        if request.param == "tinystories":
            model = request.getfixturevalue("tinystories")
            text = model / "eval/tinystories.jsonl"
        figures = analyze(model, source="text", text=text, limit=400)
        return evaluate(model, text=text, policy=recommend(figures), limit=1500)

    def test_six_bit_weights_cost_less_than_half_a_percent(self, scores):
        for name in ("w6a16", "w6a8"):
            assert abs(scores[name].perplexity / scores["float"].perplexity - 1) < 0.005

    def test_the_policy_halves_the_loss_of_six_bit_activations(self, scores):
        assert scores["w6ax"].kl <= 0.5 * scores["w6a6"].kl

    def test_four_bits_are_visibly_worse(self, scores):
        assert scores["w4a16"].kl > 10 * scores["w6a16"].kl
