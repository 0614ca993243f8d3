"""A Llama forward pass in numpy, whose matrix products can be swapped.

Every linear layer is a callable `[rows, K] -> [rows, N]` under its Hugging Face name
without `.weight`. Evaluation and analysis exchange them: float weights, packed
weights with flexq's own product, or simulated rounding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import flexq
from flexq.eval.checkpoint import Tensor, Tensors, to_float32
from flexq.eval.simulate import Floats, Ids

Linear = Callable[[Floats], Floats]

ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
PROJECTIONS = ATTENTION + MLP
HEAD = "lm_head"
EMBEDDING = "model.embed_tokens.weight"


@dataclass(frozen=True)
class LlamaConfig:
    """The entries of `config.json` that the forward pass needs."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    epsilon: float
    rope_theta: float
    positions: int
    bos: int
    eos: int

    @staticmethod
    def is_known(model: str | Path) -> bool:
        """Whether a directory holds a model that this module runs."""
        try:
            LlamaConfig.load(model)
        except (ValueError, KeyError):
            return False
        return True

    @classmethod
    def load(cls, model: str | Path) -> LlamaConfig:
        """Reads a model directory's `config.json`.

        Raises:
            ValueError: for another architecture or kind of rotary embedding.
        """
        path = Path(model) / "config.json"
        config = json.loads(path.read_text())
        if config.get("model_type") not in ("llama", "mistral", "qwen2"):
            raise ValueError(
                f"{path}: model_type {config.get('model_type')!r}: expected llama, mistral or qwen2"
            )
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise ValueError(
                f"{path}: rotary embedding {kind!r}: only the default one is supported"
            )
        heads = config["num_attention_heads"]
        return cls(
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            epsilon=config["rms_norm_eps"],
            rope_theta=rope.get("rope_theta") or config.get("rope_theta", 10000.0),
            positions=config["max_position_embeddings"],
            bos=_first(config.get("bos_token_id")),
            eos=_first(config.get("eos_token_id")),
        )


def _first(token: int | list[int] | None) -> int:
    return token[0] if isinstance(token, list) else (token or 0)


class Cache:
    """Keys and values of the positions seen so far, `[B, kv heads, positions, head]` a layer."""

    def __init__(self, config: LlamaConfig, batch: int, positions: int) -> None:
        shape = (config.layers, 2, batch, config.kv_heads, positions, config.head_dim)
        self._store = np.zeros(shape, np.float32)
        self.length = 0

    def extend(self, layer: int, keys: Floats, values: Floats) -> tuple[Floats, Floats]:
        """Adds the new positions of a layer, and gives all of its keys and values."""
        end = self.length + keys.shape[2]
        self._store[layer, 0, :, :, self.length : end] = keys
        self._store[layer, 1, :, :, self.length : end] = values
        return self._store[layer, 0, :, :, :end], self._store[layer, 1, :, :, :end]


@dataclass(frozen=True)
class Llama:
    """A model: its settings, its small tensors, and its linear layers by name."""

    config: LlamaConfig
    embedding: Callable[[Ids], Floats]
    norms: Mapping[str, Floats]
    linears: Mapping[str, Linear]
    biases: Mapping[str, Floats]

    def with_linears(self, linears: Mapping[str, Linear]) -> Llama:
        """The same model with some of its linear layers exchanged."""
        unknown = linears.keys() - self.linears.keys()
        if unknown:
            raise ValueError(f"no linear layer {sorted(unknown)[0]!r} in this model")
        return replace(self, linears={**self.linears, **linears})

    def logits(self, ids: Ids, cache: Cache | None = None) -> Floats:
        """Scores of every next token, `[B, T, vocabulary]`, for ids `[B, T]`."""
        hidden = self.embed(ids)
        for layer in range(self.config.layers):
            hidden = self.layer(layer, hidden, cache)
        if cache is not None:
            cache.length += ids.shape[1]
        return self.head(hidden)

    def embed(self, ids: Ids) -> Floats:
        """Hidden states `[B, T, hidden]` of ids `[B, T]`."""
        return self.embedding(ids.ravel()).reshape(*ids.shape, -1)

    def layer(self, layer: int, hidden: Floats, cache: Cache | None = None) -> Floats:
        """One transformer layer, `[B, T, hidden]` to the same."""
        name = f"model.layers.{layer}."
        normed = self._norm(name + "input_layernorm", hidden)
        q, k, v = (self.apply(name + projection, normed) for projection in ATTENTION[:3])
        mixed = self._attention(layer, q, k, v, cache)
        hidden = hidden + self.apply(name + ATTENTION[3], mixed)
        normed = self._norm(name + "post_attention_layernorm", hidden)
        gate, up = (self.apply(name + projection, normed) for projection in MLP[:2])
        return hidden + self.apply(name + MLP[2], silu(gate) * up)

    def head(self, hidden: Floats) -> Floats:
        """Logits of the last layer's hidden states."""
        return self.apply(HEAD, self._norm("model.norm", hidden))

    def generate(
        self, prompt: list[int], count: int, *, temperature: float = 0.0, seed: int = 0
    ) -> Iterator[int]:
        """Up to `count` token ids that continue `prompt`, until the end token.

        Temperature 0 takes the likeliest token; above it, tokens are drawn with `seed`.
        """
        random = np.random.default_rng(seed)
        cache = Cache(self.config, 1, min(len(prompt) + count, self.config.positions))
        new = prompt
        for _ in range(min(count, self.config.positions - len(prompt))):
            scores = self.logits(np.array([new], np.int64), cache)[0, -1]
            if temperature > 0:
                weights = np.exp((scores - scores.max()).astype(np.float64) / temperature)
                token = int(random.choice(len(weights), p=weights / weights.sum()))
            else:
                token = int(scores.argmax())
            if token == self.config.eos:
                return
            yield token
            new = [token]

    def apply(self, name: str, x: Floats) -> Floats:
        """One linear layer, on the last axis of its input."""
        y = self.linears[name](x.reshape(-1, x.shape[-1]))
        if name in self.biases:
            y = y + self.biases[name]
        return y.reshape(*x.shape[:-1], -1)

    def _norm(self, name: str, x: Floats) -> Floats:
        mean = np.square(x).mean(-1, keepdims=True) + np.float32(self.config.epsilon)
        return x / np.sqrt(mean) * self.norms[name]

    def _attention(
        self, layer: int, q: Floats, k: Floats, v: Floats, cache: Cache | None
    ) -> Floats:
        config = self.config
        batch, length, _ = q.shape
        start = cache.length if cache else 0
        cosine, sine = rotation(config, start, length)
        queries = rotate(_heads(q, config.head_dim), cosine, sine)
        keys, values = rotate(_heads(k, config.head_dim), cosine, sine), _heads(v, config.head_dim)
        if cache is not None:
            keys, values = cache.extend(layer, keys, values)
        total = keys.shape[2]
        # Query heads that share a key head sit side by side: [B, kv heads, shared, T, head].
        queries = queries.reshape(batch, config.kv_heads, -1, length, config.head_dim)
        future = np.triu(np.full((length, total), -np.inf, np.float32), 1 + start)
        mixed = np.empty_like(queries)
        for row in range(batch):  # one row at a time bounds the memory of the T x T scores
            scores = queries[row] @ keys[row, :, None].swapaxes(-1, -2)
            scores *= np.float32(config.head_dim**-0.5)
            scores += future
            mixed[row] = softmax(scores) @ values[row, :, None]
        merged = mixed.reshape(batch, config.heads, length, config.head_dim).swapaxes(1, 2)
        return merged.reshape(batch, length, -1)


def _heads(x: Floats, head_dim: int) -> Floats:
    return x.reshape(*x.shape[:2], -1, head_dim).swapaxes(1, 2)


def rotation(config: LlamaConfig, start: int, length: int) -> tuple[Floats, Floats]:
    """Cosine and sine `[T, head / 2]` of the rotary embedding for positions from `start` on."""
    half = config.head_dim // 2
    frequencies = config.rope_theta ** (-np.arange(half, dtype=np.float64) / half)
    angles = np.arange(start, start + length)[:, None] * frequencies
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rotate(x: Floats, cosine: Floats, sine: Floats) -> Floats:
    """Turns the pairs (i, i + head / 2) of `[B, heads, T, head]`."""
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


def softmax(scores: Floats) -> Floats:
    """Softmax over the last axis, in place."""
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(-1, keepdims=True)
    return scores


def silu(x: Floats) -> Floats:
    """The input times its logistic function."""
    with np.errstate(over="ignore"):  # exp(-x) of a very negative x is infinite, and x / inf is 0
        return x / (1 + np.exp(-x))


def table_name(tensors: Tensors) -> str:
    """The tensor that holds the embedding: a tied matrix is stored once, under either name."""
    return EMBEDDING if EMBEDDING in tensors else HEAD + ".weight"


def load_llama(
    model: str | Path, tensors: Tensors, linear: Callable[[str, Tensor], Linear]
) -> Llama:
    """Builds a model from its tensors.

    Args:
        model: the directory with `config.json`.
        tensors: its tensors, plain or packed, by name.
        linear: makes a linear layer of a module's name and its tensor.

    Raises:
        KeyError: if a tensor is missing.
    """
    config = LlamaConfig.load(model)
    head = HEAD + ".weight"
    table = tensors[table_name(tensors)]
    matrices = {HEAD: tensors[head if head in tensors else EMBEDDING]}
    norms = {"model.norm": to_float32(tensors["model.norm.weight"])}
    biases: dict[str, Floats] = {}
    for layer in range(config.layers):
        name = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            norms[name + norm] = to_float32(tensors[f"{name}{norm}.weight"])
        for projection in PROJECTIONS:
            matrices[name + projection] = tensors[f"{name}{projection}.weight"]
            if f"{name}{projection}.bias" in tensors:
                biases[name + projection] = to_float32(tensors[f"{name}{projection}.bias"])
    linears = {name: linear(name, matrix) for name, matrix in matrices.items()}
    return Llama(config, _embedding(table), norms, linears, biases)


def _embedding(table: Tensor) -> Callable[[Ids], Floats]:
    if isinstance(table, flexq.QTensor):
        return lambda ids: flexq.embedding(ids, table, np.float32)
    vectors = to_float32(table)
    return lambda ids: vectors[ids]
