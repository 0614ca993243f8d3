"""Tiny models on disk, dense; without transformers these tests are skipped."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the torch extra is not installed")
with warnings.catch_warnings():
    # what transformers warns about while it is imported is none of these tests' business
    warnings.simplefilter("ignore")
    pytest.importorskip("transformers", reason="the transformers extra is not installed")
    import torch
    from transformers.utils import logging

logging.disable_progress_bar()

SIZES = {
    "vocab_size": 300,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "dtype": "float32",
}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "tied": ("Llama", {"tie_word_embeddings": True}),
    "mixtral": ("Mixtral", {"num_local_experts": 4}),
    "qwen3_moe": (
        "Qwen3Moe",
        {"head_dim": 64, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 256},
    ),
    # 384 columns in groups of 128 are three groups, which two processes cannot share
    "misaligned": ("Llama", {"intermediate_size": 384}),
}


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a dense model with random weights, by architecture."""
    import transformers

    made: dict[str, Path] = {}

    def directory(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            architecture, settings = ARCHITECTURES[name]
            config = getattr(transformers, architecture + "Config")(**{**SIZES, **settings})
            torch.manual_seed(6)
            model = getattr(transformers, architecture + "ForCausalLM")(config)
            model.save_pretrained(made[name])
        return made[name]

    return directory


@pytest.fixture(scope="session")
def packed(
    dense: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """The directory of a packed model, made by the pipeline behind `flexq-pack`."""
    from flexq._flexq import run_cli

    made: dict[tuple[str, ...], Path] = {}

    def directory(name: str, preset: str = "linear", *options: str) -> Path:
        key = (name, preset, *options)
        if key not in made:
            out = tmp_path_factory.mktemp("packed") / f"{name}-{preset}"
            command = ["flexq-pack", "pack", str(dense(name)), str(out), "--preset", preset]
            assert run_cli([*command, *options]) == 0
            made[key] = out
        return made[key]

    return directory
