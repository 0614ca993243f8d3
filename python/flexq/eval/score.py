"""Loss, perplexity and agreement of several models on one text."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from flexq.eval.simulate import Floats, Ids
from flexq.eval.text import batches


class Model(Protocol):
    """What scoring needs of a model."""

    def logits(self, ids: Ids) -> Floats:
        """Scores of every next token, `[B, T, vocabulary]`, for ids `[B, T]`."""


@dataclass
class Score:
    """Sums over the predicted tokens of a text.

    Attributes:
        tokens: predicted tokens.
        loss: summed negative log-likelihood, nats.
        divergence: summed Kullback-Leibler divergence from the reference, nats.
        agreed: tokens whose likeliest prediction is the reference's.
        seconds: time spent in the model.
    """

    tokens: int = 0
    loss: float = 0.0
    divergence: float = 0.0
    agreed: int = 0
    seconds: float = 0.0

    @property
    def nats(self) -> float:
        """Mean loss a token."""
        return self.loss / self.tokens

    @property
    def perplexity(self) -> float:
        """The exponential of the mean loss."""
        return math.exp(self.nats)

    @property
    def kl(self) -> float:
        """Mean divergence from the reference, nats a token."""
        return self.divergence / self.tokens

    @property
    def top1(self) -> float:
        """Share of tokens where model and reference predict the same."""
        return self.agreed / self.tokens

    def add(self, logs: Floats, targets: Ids, reference: Floats) -> None:
        """Adds log-probabilities `[tokens, vocabulary]` of a batch's predicted tokens."""
        self.tokens += len(targets)
        self.loss -= likelihood(logs, targets)
        if logs is reference:
            self.agreed += len(targets)
            return
        self.divergence += divergence(reference, logs)
        self.agreed += int((logs.argmax(-1) == reference.argmax(-1)).sum())


def log_softmax(logits: Floats) -> Floats:
    """Log-probabilities over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def likelihood(logs: Floats, targets: Ids) -> float:
    """Log-likelihood of targets, summed, in nats."""
    return float(logs[np.arange(len(targets)), targets].sum(dtype=np.float64))


def divergence(reference: Floats, logs: Floats) -> float:
    """Kullback-Leibler divergence of log-probabilities, summed over rows, in nats."""
    return float((np.exp(reference) * (reference - logs)).sum(dtype=np.float64))


def score(
    models: Mapping[str, Model],
    reference: str,
    sequences: list[Ids],
    progress: Callable[[float], None] = lambda _: None,
) -> dict[str, Score]:
    """Scores every model on the same sequences.

    Args:
        models: models by name.
        reference: name of the one that divergence and agreement are taken against.
        sequences: ids, each sequence alone (see `load_text`).
        progress: told the finished share, 0 to 1.
    """
    scores = {name: Score() for name in models}
    order = [reference, *(name for name in models if name != reference)]
    parts = batches(sequences)
    for index, (ids, real) in enumerate(parts):
        targets = ids[real]
        base: Floats | None = None
        for place, name in enumerate(order):
            start = time.perf_counter()
            logits = models[name].logits(ids)
            scores[name].seconds += time.perf_counter() - start
            # Position t predicts token t + 1.
            logs = log_softmax(logits[:, :-1][real[:, 1:]])
            base = logs if base is None else base
            scores[name].add(logs, targets, base)
            progress((index + (place + 1) / len(order)) / len(parts))
    return scores
