import json
import math

import flexq
import numpy as np
import pytest
from flexq.eval.score import Score, divergence, log_softmax, score
from flexq.eval.simulate import round_activations, round_weights
from flexq.eval.text import batches, load_text
from flexq.eval.variant import Build, Variant


class Fixed:
    """A model whose scores do not depend on the text."""

    def __init__(self, logits):
        self.row = np.array(logits, np.float32)

    def logits(self, ids):
        return np.broadcast_to(self.row, (*ids.shape, len(self.row)))


def test_uniform_predictions_have_the_vocabulary_as_perplexity():
    result = score({"a": Fixed([0.0] * 8)}, "a", [np.array([0, 1, 2]), np.array([0, 7])])["a"]
    assert result.tokens == 3
    assert result.perplexity == pytest.approx(8)
    assert (result.kl, result.top1) == (0, 1)


def test_divergence_and_agreement_against_a_reference():
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.7, 0.1])
    models = {"q": Fixed(np.log(q)), "p": Fixed(np.log(p))}
    result = score(models, "p", [np.array([0, 0, 1, 1])])
    assert list(result) == ["q", "p"]
    assert result["q"].kl == pytest.approx((p * np.log(p / q)).sum(), rel=1e-5)
    assert result["q"].top1 == 0
    assert result["q"].nats == pytest.approx(-(math.log(0.2) + 2 * math.log(0.7)) / 3, rel=1e-5)


def test_log_softmax_is_safe_and_normal():
    logs = log_softmax(np.array([[1e4, 0.0, -1e4]], np.float32))
    assert np.exp(logs).sum() == pytest.approx(1)
    assert divergence(logs, logs) == 0


def test_batches_cover_every_sequence_once():
    sequences = [np.arange(length) for length in (5, 3, 5, 2, 9)]
    parts = batches(sequences, tokens=10)
    assert sum(int(real.sum()) for _, real in parts) == sum(len(s) - 1 for s in sequences)
    assert all(ids.size <= 10 for ids, _ in parts)
    for ids, real in parts:
        assert not real[:, 0].any()
        assert (ids[real] > 0).all()


def test_scores_do_not_depend_on_batching(plain, austen, austen_text, monkeypatch):
    sequences = load_text(austen_text, austen, 511)[:1]
    short = [sequences[0][:40], sequences[0][:100], sequences[0][:7]]
    together = score({"a": plain}, "a", short)["a"]
    alone = [score({"a": plain}, "a", [one])["a"] for one in short]
    assert together.loss == pytest.approx(sum(one.loss for one in alone), rel=1e-5)


def test_plain_text_is_cut_into_windows(austen, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("It was a truth. " * 400)
    sequences = load_text(path, austen)
    assert [len(s) for s in sequences[:-1]] == [512] * (len(sequences) - 1)
    assert {int(s[0]) for s in sequences} == {0}
    assert len(load_text(path, austen, 600)) == 2
    path.write_text("")
    with pytest.raises(ValueError, match="no text to score"):
        load_text(path, austen)


def test_documents_with_and_without_ids(austen, tmp_path):
    path = tmp_path / "documents.jsonl"
    path.write_text(json.dumps({"ids": [0, 5, 6]}) + "\n" + json.dumps({"ids": list(range(600))}))
    assert [len(s) for s in load_text(path, austen)] == [3, 512]
    path.write_text(json.dumps({"text": "Emma"}))
    (ids,) = load_text(path, austen)
    assert ids[0] == 0
    assert len(ids) > 1


@pytest.mark.parametrize("bits", [8, 6])
@pytest.mark.parametrize("group", [128, 64, "row"])
def test_rounded_activations_lie_on_the_grid(bits, group, rng):
    x = rng.standard_normal((4, 300)).astype(np.float32)
    x[0, :128] = 0
    y = round_activations(x, bits, group)
    width = 300 if group == "row" else group
    limit = 2 ** (bits - 1) - 1
    for start in range(0, 300, width):
        part, rounded = x[:, start : start + width], y[:, start : start + width]
        scale = np.abs(part).max(1, keepdims=True) / limit
        assert (np.abs(part - rounded) <= scale * 0.5001).all()
    assert (y[0, : min(width, 128)] == 0).all() or group == "row"
    assert round_activations(x, 16, group) is x


def test_rounded_weights_have_few_levels(rng):
    w = rng.standard_normal((3, 256)).astype(np.float32)
    assert len(np.unique(round_weights(w, 4)[0, :128])) <= 16
    errors = [np.abs(round_weights(w, bits) - w).mean() for bits in (3, 4, 6, 8)]
    assert errors == sorted(errors, reverse=True)


NAMES = ["w6a16", "w6a8", "w6a6", "w6a8:g64:mse:rows", "w6a6:grow:absmax31", "w6a8:g32:pair"]


def pair_of_models(austen, tensors, name):
    """The model of a variant with simulated products and with those of the kernels."""
    variant = Variant.parse(name)
    return [Build(simulate=simulate).model(austen, tensors, variant) for simulate in (True, False)]


@pytest.mark.parametrize("name", NAMES)
def test_simulated_layers_equal_the_kernels(austen, tensors, plain, window, name):
    """Given the same input, codes are the same and only the order of sums differs."""
    inputs = {}

    def watch(name, linear):
        def watched(x):
            inputs[name] = x
            return linear(x)

        return watched

    watched = plain.with_linears({name: watch(name, f) for name, f in plain.linears.items()})
    watched.logits(window[0][None, :64])
    simulated, kernels = pair_of_models(austen, tensors, name)
    for layer, x in inputs.items():
        y, exact = kernels.linears[layer](x), simulated.linears[layer](x)
        # sums of up to 768 terms in float32
        assert np.abs(y - exact).max() < 4e-6 * np.abs(exact).max(), layer


def test_simulated_exact_activations_give_the_same_loss(austen, tensors, window):
    simulated, kernels = pair_of_models(austen, tensors, "w6a16")
    result = score({"simulated": simulated, "kernels": kernels}, "simulated", window)
    assert result["kernels"].nats == pytest.approx(result["simulated"].nats, rel=1e-7)
    assert result["kernels"].kl < 1e-7


@pytest.mark.parametrize("name", [name for name in NAMES if "a16" not in name])
def test_simulated_models_differ_by_rounding_noise_at_most(austen, tensors, window, name):
    """Where one value falls on the other side of a rounding step, later layers round anew.

    The two models then carry the same rounding noise with different signs: they are at most
    twice as far from each other as rounding the activations takes either from exact ones, and
    the loss differs by a mean of as many differences without direction as there are tokens.
    """
    simulated, kernels = pair_of_models(austen, tensors, name)
    exact = Variant.parse(name.replace("a8", "a16").replace("a6", "a16"))
    models = {
        "exact": Build().model(austen, tensors, exact),
        "simulated": simulated,
        "kernels": kernels,
    }
    noise = score(models, "exact", window)["simulated"].kl
    del models["exact"]
    result = score(models, "simulated", window)
    assert result["kernels"].kl < 2 * noise
    deviation = math.sqrt(2 * 2 * noise / result["kernels"].tokens)
    assert abs(result["kernels"].nats - result["simulated"].nats) < 4 * deviation


def test_linear_preset_keeps_the_head(austen, tensors, plain, window):
    ids = window[0][None, :20]
    state = plain.embed(ids)
    linear = Build("linear").model(austen, tensors, Variant.parse("w6a8"))
    full = Build("full").model(austen, tensors, Variant.parse("w6a8"))
    np.testing.assert_array_equal(linear.head(state), plain.head(state))
    assert not np.array_equal(full.head(state), plain.head(state))


@pytest.mark.parametrize(
    "text", ["w6", "w9a8", "w6a4", "a8", "w6a8:g48", "w6a8:fast", "", "float:g64"]
)
def test_unknown_variants_are_refused(text):
    with pytest.raises(ValueError, match="variant"):
        Variant.parse(text)


def test_variant_options():
    variant = Variant.parse("w6a8:g32:mse:rows")
    assert (variant.weight_bits, variant.group_size, variant.rule, variant.act_group) == (
        6,
        32,
        "mse",
        "row",
    )
    assert variant.policy.bits("anything") == 8


def test_packed_weights_refuse_other_widths():
    q = flexq.quantize(np.ones((2, 128), np.float32))
    with pytest.raises(ValueError, match="packed with 6 bits already"):
        Build().linear("x", q, Variant.parse("w4a16"))


def test_empty_scores_have_no_perplexity():
    with pytest.raises(ZeroDivisionError):
        _ = Score().perplexity
