"""Small checkpoints in the Hugging Face layout, of every kind of tensor that packing knows."""

import hashlib
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

Tensors = dict[str, NDArray[Any]]
BF16 = ml_dtypes.bfloat16


def noise(seed: int, *shape: int, dtype: Any = BF16) -> NDArray[Any]:
    return (np.random.default_rng(seed).standard_normal(shape) * 0.02).astype(dtype)


def mixture() -> tuple[Tensors, Tensors]:
    """Two shards: attention, fused experts, a router, a vision tower, norms, a tied head."""
    embedding = noise(1, 64, 128)
    first = {
        "model.embed_tokens.weight": embedding,
        "model.layers.0.self_attn.q_proj.weight": noise(2, 128, 128),
        "model.layers.0.self_attn.q_proj.bias": noise(3, 128),
        "model.layers.0.mlp.gate.weight": noise(4, 4, 128),
        "model.layers.0.mlp.experts.gate_up_proj": noise(5, 4, 256, 128),
        "model.layers.0.mlp.experts.down_proj": noise(6, 4, 128, 128),
        "model.layers.0.input_layernorm.weight": noise(7, 128, dtype=np.float32),
    }
    second = {
        "lm_head.weight": embedding,
        "model.visual.blocks.0.attn.qkv.weight": noise(8, 128, 128),
        "model.layers.1.self_attn.q_proj.weight": noise(9, 128, 172, dtype=np.float16),
        "model.layers.1.mlp.down_proj.weight": noise(10, 96, 384, dtype=np.float32),
        "model.norm.weight": noise(11, 128),
        "model.position_ids": np.arange(7, dtype=np.int64),
    }
    return first, second


MIXTURE_QUANTIZED = {
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.mlp.experts.gate_up_proj",
    "model.layers.0.mlp.experts.down_proj",
    "model.layers.1.self_attn.q_proj.weight",
    "model.layers.1.mlp.down_proj.weight",
}


def write(folder: Path, shards: tuple[Tensors, ...], config: dict[str, Any]) -> Path:
    """A directory of these shards, with a config and files that are not weights."""
    folder.mkdir(parents=True)
    if len(shards) == 1:
        save_file(shards[0], folder / "model.safetensors", {"format": "pt"})
    else:
        names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
        for name, tensors in zip(names, shards, strict=True):
            save_file(tensors, folder / name, {"format": "pt"})
        weight_map = {key: name for name, t in zip(names, shards, strict=True) for key in t}
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text('{"a": 1}')
    (folder / "pytorch_model.bin").write_bytes(b"weights in another format")
    return folder


def write_mixture(folder: Path) -> Path:
    config = {"model_type": "qwen3_vl_moe", "tie_word_embeddings": True, "hidden_size": 128}
    return write(folder, mixture(), config)


def digest(folder: Path) -> dict[str, str]:
    """The checksum of every file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
