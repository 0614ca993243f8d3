"""Write a random Llama-like bf16 checkpoint of any size: what `bench.py` packs.

    python benches/pack/checkpoint.py DIRECTORY [--layers 8] [--shards 4]

Hidden size 4096 as in Llama 3.1 8B: 0.436 GB a layer, 1.05 GB of embedding. Weights are drawn
from a normal distribution once and repeated from ever other places; nothing here compresses or
deduplicates, so repetition changes no figure.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

HIDDEN, INTERMEDIATE, VOCABULARY = 4096, 14336, 128256
HEADS, KV_HEADS = 32, 8
BLOCK = 64 << 20


def tensors(layers: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes, in order."""
    kv = HIDDEN // HEADS * KV_HEADS
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(layers):
        base = f"model.layers.{layer}"
        shapes[f"{base}.input_layernorm.weight"] = (HIDDEN,)
        shapes[f"{base}.self_attn.q_proj.weight"] = (HIDDEN, HIDDEN)
        shapes[f"{base}.self_attn.k_proj.weight"] = (kv, HIDDEN)
        shapes[f"{base}.self_attn.v_proj.weight"] = (kv, HIDDEN)
        shapes[f"{base}.self_attn.o_proj.weight"] = (HIDDEN, HIDDEN)
        shapes[f"{base}.post_attention_layernorm.weight"] = (HIDDEN,)
        shapes[f"{base}.mlp.gate_proj.weight"] = (INTERMEDIATE, HIDDEN)
        shapes[f"{base}.mlp.up_proj.weight"] = (INTERMEDIATE, HIDDEN)
        shapes[f"{base}.mlp.down_proj.weight"] = (HIDDEN, INTERMEDIATE)
    shapes["model.norm.weight"] = (HIDDEN,)
    return shapes


def config(layers: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": True,
    }


def noise() -> np.ndarray:
    """Bits of normal bf16 numbers, standard deviation 0.02."""
    floats = np.random.default_rng(6).standard_normal(BLOCK, dtype=np.float32) * np.float32(0.02)
    bits = floats.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def write(directory: Path, layers: int, shards: int) -> int:
    """Write the checkpoint and give the bytes of its tensors."""
    shapes = tensors(layers)
    sizes = {name: 2 * int(np.prod(shape)) for name, shape in shapes.items()}
    total, block = sum(sizes.values()), noise()
    parts: list[list[str]] = [[] for _ in range(shards)]
    before = 0
    for name, size in sizes.items():
        parts[min(before * shards // total, shards - 1)].append(name)
        before += size
    directory.mkdir(parents=True)
    weight_map, start = {}, 0
    for number, names in enumerate(parts):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        header, end = {}, 0
        for name in names:
            header[name] = {
                "dtype": "BF16",
                "shape": shapes[name],
                "data_offsets": [end, end + sizes[name]],
            }
            end += sizes[name]
            weight_map[name] = file
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (directory / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for name in names:
                left = sizes[name] // 2
                while left:
                    part = block[start : start + left]
                    out.write(part.data)
                    left -= len(part)
                    start = (start + len(part)) % BLOCK
                start = (start + 12345) % BLOCK
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    (directory / "config.json").write_text(json.dumps(config(layers)))
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--shards", type=int, default=4)
    arguments = parser.parse_args()
    total = write(arguments.directory, arguments.layers, arguments.shards)
    print(f"{arguments.directory}: {total:,} bytes of tensors")


if __name__ == "__main__":
    main()
