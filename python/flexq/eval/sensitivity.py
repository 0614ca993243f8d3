"""How sensitive each linear layer is to 6-bit weights and 6- or 8-bit activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

import flexq
from flexq.eval.llama import HEAD, Linear, Llama
from flexq.eval.score import divergence, likelihood, log_softmax
from flexq.eval.simulate import Floats, Ids
from flexq.eval.text import Batch
from flexq.policy import Policy

WIDTHS = (8, 6)
"""Activation bits that are compared."""
ROWS = 1024
"""Rows of activations that output errors are measured on."""
OUTLIER = 6.0
"""An activation this many times larger than the layer's RMS counts as an outlier."""


@dataclass
class Sensitivity:
    """The figures of one linear layer; relative errors are RMS over RMS.

    Attributes:
        name: module name.
        weight_error: relative error of the 6-bit weights.
        worst_group: the same of the worst group of columns.
        act_max: largest input, in units of the inputs' RMS.
        outlier_share: share of inputs beyond `OUTLIER` times the RMS.
        error: relative error of the layer's output by activation bits, its weights in 6 bits.
        effect: relative change of the hidden state after the transformer layer, likewise.
        kl: divergence of the model's predictions, nats a token, likewise; empty if the
            change was not followed to the end.
        loss: change of the mean loss, nats a token, likewise.
    """

    name: str
    weight_error: float
    worst_group: float
    act_max: float
    outlier_share: float
    error: dict[int, float]
    effect: dict[int, float] = field(default_factory=dict)
    kl: dict[int, float] = field(default_factory=dict)
    loss: dict[int, float] = field(default_factory=dict)

    @property
    def cost(self) -> float:
        """What 6 instead of 8 bits cost here: divergence, or else squared change of the state."""
        figures = self.kl or {bits: effect**2 for bits, effect in self.effect.items()}
        return max(figures[6] - figures[8], 0.0)


@dataclass(frozen=True)
class Subject:
    """A model under analysis.

    Attributes:
        model: in float.
        weights: the matrices to analyse, by module name.
        packed: the same, quantized.
        product: makes a layer of a packed matrix and activation bits.
    """

    model: Llama
    weights: Mapping[str, Floats]
    packed: Mapping[str, flexq.QTensor]
    product: Callable[[flexq.QTensor, int], Linear]

    def changed(self, name: str, bits: int) -> Llama:
        """The model with one layer quantized."""
        return self.model.with_linears({name: self.product(self.packed[name], bits)})


def measure(
    subject: Subject,
    parts: list[Batch],
    *,
    follow: bool = True,
    progress: Callable[[float], None] = lambda _: None,
) -> list[Sensitivity]:
    """Figures of every layer, quantized one at a time while the others stay in float.

    Args:
        subject: the model.
        parts: token ids (see `batches`).
        follow: also measure what the change does to the predictions.
        progress: told the finished share, 0 to 1.
    """
    model, found = subject.model, dict[str, Sensitivity]()
    tokens = sum(int(real.sum()) for _, real in parts)
    for index, (ids, real) in enumerate(parts):
        states, inputs = _trace(model, ids, subject.packed)
        exact = log_softmax(states[-1][:, :-1][real[:, 1:]])
        for place, name in enumerate(subject.packed):
            if name not in found:
                found[name] = _layer_figures(subject, name, inputs[name])
            figures = found[name]
            layer = model.config.layers if name == HEAD else int(name.split(".")[2])
            for bits in WIDTHS:
                changed = subject.changed(name, bits)
                state = _step(changed, layer, states[layer])
                effect = relative_error(state, states[layer + 1])
                figures.effect[bits] = figures.effect.get(bits, 0.0) + effect / len(parts)
                if follow:
                    for later in range(layer + 1, model.config.layers + 1):
                        state = _step(changed, later, state)
                    logs = log_softmax(state[:, :-1][real[:, 1:]])
                    loss = likelihood(exact, ids[real]) - likelihood(logs, ids[real])
                    kl = divergence(exact, logs)
                    figures.kl[bits] = figures.kl.get(bits, 0.0) + kl / tokens
                    figures.loss[bits] = figures.loss.get(bits, 0.0) + loss / tokens
            progress((index + (place + 1) / len(subject.packed)) / len(parts))
    return list(found.values())


def _step(model: Llama, layer: int, state: Floats) -> Floats:
    """One transformer layer, or the head after the last."""
    return model.head(state) if layer == model.config.layers else model.layer(layer, state)


def _trace(model: Llama, ids: Ids, names: Iterable[str]) -> tuple[list[Floats], dict[str, Floats]]:
    """The state before every step and at the end, and a sample of the layers' inputs."""
    inputs: dict[str, Floats] = {}

    def watch(name: str, linear: Linear) -> Linear:
        def watched(x: Floats) -> Floats:
            inputs[name] = x[:: -(-len(x) // ROWS)]
            return linear(x)

        return watched

    model = model.with_linears({name: watch(name, model.linears[name]) for name in names})
    states = [model.embed(ids)]
    for layer in range(model.config.layers + 1):
        states.append(_step(model, layer, states[-1]))
    return states, inputs


def _layer_figures(subject: Subject, name: str, x: Floats) -> Sensitivity:
    q = subject.packed[name]
    y = subject.model.linears[name](x)
    rms = max(float(np.sqrt(np.square(x, dtype=np.float64).mean())), 1e-30)
    sizes = np.abs(x)
    total, worst = weight_errors(subject.weights[name], q)
    return Sensitivity(
        name=name,
        weight_error=total,
        worst_group=worst,
        act_max=float(sizes.max()) / rms,
        outlier_share=float((sizes > OUTLIER * rms).mean()),
        error={bits: relative_error(subject.product(q, bits)(x), y) for bits in WIDTHS},
    )


def weight_errors(w: Floats, q: flexq.QTensor) -> tuple[float, float]:
    """Relative RMS error of quantized weights: over all, and of the worst group."""
    columns = w.shape[1]
    width = columns if q.group_size == "row" else int(q.group_size)
    starts = np.arange(0, columns, width)
    difference = q.dequantize(np.float32) - w
    error = np.add.reduceat(np.square(difference, dtype=np.float64), starts, axis=1)
    power = np.add.reduceat(np.square(w, dtype=np.float64), starts, axis=1)
    shares = np.divide(error, power, out=np.zeros_like(error), where=power > 0)
    return float(np.sqrt(error.sum() / max(power.sum(), 1e-30))), float(np.sqrt(shares.max()))


def relative_error(y: Floats, exact: Floats) -> float:
    """RMS of the difference over RMS of the exact values."""
    power = np.square(exact, dtype=np.float64).sum()
    return float(np.sqrt(np.square(y - exact, dtype=np.float64).sum() / max(power, 1e-30)))


def recommend(figures: list[Sensitivity], keep: float = 0.1) -> Policy:
    """The policy that gives 8 bits to the fewest layers and leaves a share `keep` of the cost.

    Costs of single layers add up well as long as they are small, which makes the choice
    greedy: the costliest layers first.
    """
    ranked = sorted(figures, key=lambda one: one.cost, reverse=True)
    left = total = sum(one.cost for one in ranked)
    chosen: list[str] = []
    for one in ranked:
        if left <= keep * total:
            break
        chosen.append(one.name)
        left -= one.cost
    return Policy(6, dict.fromkeys(_patterns(chosen, [one.name for one in figures]), 8))


def _patterns(chosen: list[str], every: list[str]) -> list[str]:
    """Names, or the projection's name where all of its layers were chosen."""
    kinds = dict.fromkeys(name.rsplit(".", 1)[-1] for name in every)
    whole = [
        kind for kind in kinds if all(n in chosen for n in every if n.rsplit(".", 1)[-1] == kind)
    ]
    return whole + sorted(name for name in chosen if name.rsplit(".", 1)[-1] not in whole)


def rank_agreement(first: list[float], second: list[float]) -> float:
    """Spearman's rank correlation: 1 for the same order, 0 for none, -1 for the reverse."""
    ranks = [np.argsort(np.argsort(values)).astype(np.float64) for values in (first, second)]
    return float(np.asarray(np.corrcoef(ranks))[0, 1])
