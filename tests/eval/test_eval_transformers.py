"""Models that transformers runs, scored like the others."""

import json

import pytest
from flexq.__main__ import main
from flexq.eval.evaluate import evaluate

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def test_equal_to_numpy_where_both_can(austen, austen_text):
    names = ["float", "w6a16", "w4a16"]
    options = {"text": austen_text, "limit": 300, "variants": names}
    ours = evaluate(austen, through="numpy", **options)
    theirs = evaluate(austen, through="transformers", **options)
    for name in names:
        assert theirs[name].nats == pytest.approx(ours[name].nats, rel=1e-5), name


@pytest.fixture(scope="module")
def neox(austen, tmp_path_factory):
    """A random model of an architecture that only transformers runs."""
    path = tmp_path_factory.mktemp("neox")
    config = transformers.GPTNeoXConfig(
        vocab_size=2048,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(5)
    transformers.GPTNeoXForCausalLM(config).save_pretrained(path)
    (path / "tokenizer.json").write_bytes((austen / "tokenizer.json").read_bytes())
    return path


def test_other_architectures(neox, austen_text, capsys):
    options = ["--text", str(austen_text), "--limit", "200", "--json"]
    assert main(["eval", str(neox), *options, "--variants", "float,w6a16,w6a8,w6a6"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [result[name]["kl"] for name in result] == sorted(result[name]["kl"] for name in result)
    assert result["w6a16"]["kl"] > 0


def test_what_transformers_does_not_do_is_said(neox, austen_text):
    for name in ("w6a8:rows", "w6a16:pair", "w4a8"):
        with pytest.raises(ValueError, match=name):
            evaluate(neox, text=austen_text, limit=50, variants=["float", name])
