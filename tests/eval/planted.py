"""Models with outlier channels planted: the same function in float, harder to quantize."""

from dataclasses import replace

import numpy as np
from flexq.eval.llama import Llama
from flexq.eval.variant import float_linear

Weights = dict[str, np.ndarray]
GROUP = 128


def plant(model: Llama, weights: Weights, where: dict[str, float]) -> tuple[Llama, Weights]:
    """Makes one input channel in every group of the named projections larger by a factor.

    The producer of a channel grows by the factor and its consumers shrink by it:
    `down_proj` reads rows of `up_proj`, `o_proj` rows of `v_proj`, and the projections
    behind a norm read its weight. Factors are powers of two, which keeps float results.
    """
    weights, norms, config = dict(weights), dict(model.norms), model.config
    for name, factor in where.items():
        prefix, kind = name.rsplit(".", 1)
        layer = prefix.rsplit(".", 1)[0]
        channels = np.arange(5, weights[name].shape[1], GROUP)
        consumers, rows = [name], channels
        if kind == "down_proj":
            producer = f"{prefix}.up_proj"
        elif kind == "o_proj":
            # Several query heads pass on one value head, so its channel appears several times.
            producer, shared = f"{prefix}.v_proj", config.heads // config.kv_heads
            heads, inside = channels // config.head_dim // shared, channels % config.head_dim
            rows = heads * config.head_dim + inside
            first = heads[:, None] * shared + np.arange(shared)
            channels = (first * config.head_dim + inside[:, None]).ravel()
        elif kind in ("q_proj", "k_proj", "v_proj"):
            producer = f"{layer}.input_layernorm"
            consumers = [f"{prefix}.{letter}_proj" for letter in "qkv"]
        else:
            producer = f"{layer}.post_attention_layernorm"
            consumers = [f"{prefix}.gate_proj", f"{prefix}.up_proj"]
        home = norms if producer in norms else weights
        home[producer] = home[producer].copy()
        home[producer][rows] *= factor
        for consumer in consumers:
            weights[consumer] = weights[consumer].copy()
            weights[consumer][:, channels] /= factor
    linears = {name: float_linear(w) for name, w in weights.items()}
    return replace(model.with_linears(linears), norms=norms), weights
