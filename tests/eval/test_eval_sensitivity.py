import flexq
import numpy as np
import pytest
from flexq.eval.analyze import random_ids
from flexq.eval.sensitivity import (
    Sensitivity,
    Subject,
    measure,
    rank_agreement,
    recommend,
    relative_error,
    weight_errors,
)
from flexq.eval.text import batches
from flexq.eval.variant import packed_linear
from planted import plant

PLANTED = {
    "model.layers.1.self_attn.o_proj": 32.0,
    "model.layers.2.mlp.gate_proj": 16.0,
    "model.layers.3.mlp.down_proj": 16.0,
}


def product(q, bits):
    return packed_linear(q, bits, 128, "cpu")


def subject_of(model, weights):
    return Subject(model, weights, {k: flexq.quantize(w) for k, w in weights.items()}, product)


def figures(name, cost):
    return Sensitivity(name, 0, 0, 0, 0, {8: 0, 6: 0}, kl={8: 0.0, 6: cost})


def test_planting_keeps_the_function(plain, weights, window):
    model, _ = plant(plain, weights, PLANTED)
    ids = window[0][None, :128]
    np.testing.assert_allclose(model.logits(ids), plain.logits(ids), rtol=0, atol=2e-4)


def test_measured_ranking_leads_with_the_planted_outliers(plain, weights, window):
    model, changed = plant(plain, weights, PLANTED)
    result = measure(subject_of(model, changed), batches(window))
    ranked = [one.name for one in sorted(result, key=lambda one: one.cost, reverse=True)]
    # gate_proj and up_proj read the same inputs, so both suffer.
    assert set(ranked[:4]) == {*PLANTED, "model.layers.2.mlp.up_proj"}
    assert ranked[0] == "model.layers.1.self_attn.o_proj"
    policy = recommend(result)
    assert [policy.bits(name) for name in PLANTED] == [8, 8, 8]


def test_weights_alone_find_the_planted_outliers(plain, weights):
    model, changed = plant(plain, weights, PLANTED)
    parts = batches(random_ids(model, 2048))
    before = measure(subject_of(plain, weights), parts, follow=False)
    after = measure(subject_of(model, changed), parts, follow=False)
    growth = {b.name: b.cost / a.cost for a, b in zip(before, after, strict=True)}
    ranked = sorted(growth, key=growth.__getitem__, reverse=True)
    assert set(ranked[:4]) == {*PLANTED, "model.layers.2.mlp.up_proj"}
    policy = recommend(after, keep=0.1)
    assert [policy.bits(name) for name in PLANTED] == [8, 8, 8]


@pytest.mark.parametrize("kind", ["self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj"])
def test_a6_breaks_as_outliers_grow_while_a8_holds(plain, weights, window, kind):
    name = f"model.layers.2.{kind}"
    errors = {6: [], 8: []}
    for factor in (1.0, 4.0, 16.0, 64.0):
        model, changed = plant(plain, weights, {name: factor})
        (figures,) = measure(
            subject_of(model, {name: changed[name]}), batches(window), follow=False
        )
        for bits, found in errors.items():
            found.append(figures.error[bits])
    assert errors[6] == sorted(errors[6])
    assert errors[6][2] > 1.6 * errors[6][0]
    # Outliers 16 times larger cost 8 bits not much more than none cost 6 bits.
    assert errors[8][2] < 2 * errors[6][0]


def test_weight_errors_find_the_worst_group():
    w = np.random.default_rng(1).standard_normal((8, 300), np.float32)
    w[3, 128:256] *= 1e-3
    w[3, 130] = 1.0  # a group whose scale is set by one element
    total, worst = weight_errors(w, flexq.quantize(w))
    assert 0.01 < total < 0.05
    assert worst > total
    assert weight_errors(
        np.zeros((2, 128), np.float32), flexq.quantize(np.zeros((2, 128), np.float32))
    ) == (0, 0)


def test_relative_error():
    exact = np.array([[3.0, 4.0]], np.float32)
    assert relative_error(exact, exact) == 0
    assert relative_error(exact + np.float32(1), exact) == pytest.approx(np.sqrt(2) / 5)


def test_recommend_takes_the_costliest_layers_first():
    layers = [
        figures(f"model.layers.{i}.mlp.{kind}", cost)
        for i, kind, cost in [
            (0, "up_proj", 1.0),
            (0, "down_proj", 50.0),
            (1, "up_proj", 9.0),
            (1, "down_proj", 40.0),
        ]
    ]
    assert recommend(layers, keep=0.1).overrides == {"down_proj": 8}
    assert recommend(layers, keep=0.01).overrides == {
        "down_proj": 8,
        "model.layers.1.mlp.up_proj": 8,
    }
    assert recommend(layers, keep=1.0).overrides == {}
    every = recommend(layers, keep=0.0)
    assert [every.bits(one.name) for one in layers] == [8] * 4


def test_policy_from_analysis_costs_less_than_six_bits(plain, weights, window):
    subject = subject_of(plain, dict(list(weights.items())[:7]))
    result = measure(subject, batches(window))
    policy = recommend(result)
    chosen = [one for one in result if policy.bits(one.name) == 8]
    total = sum(one.cost for one in result)
    assert sum(one.cost for one in result if one not in chosen) <= 0.25 * total
    assert max(result, key=lambda one: one.cost) in chosen


def test_rank_agreement():
    assert rank_agreement([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert rank_agreement([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
