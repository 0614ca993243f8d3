"""Text to score a model on, as token ids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flexq.eval.simulate import Ids
from flexq.eval.tokenizer import load_tokenizer

LONGEST = 2048
"""Positions of a window at most, whatever the model allows."""

Batch = tuple[Ids, npt.NDArray[np.bool_]]


def load_text(path: str | Path, model: str | Path, limit: int | None = None) -> list[Ids]:
    """Sequences of token ids, each led by the start token and scored on its own.

    A plain text is cut into windows of the model's context. In a `.jsonl` file every line
    is a document: `ids` if the line has them, else `text`.

    Args:
        path: the file.
        model: the model's directory: its context, start token and, unless ids are stored,
            its tokenizer.
        limit: predicted tokens after which to stop, counted in whole sequences.

    Raises:
        OSError: for missing files.
        ValueError: if the file holds nothing to predict.
    """
    path, (positions, start) = Path(path), context(model)
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        documents = [json.loads(line) for line in content.splitlines()]
        if all("ids" in document for document in documents):
            every = [document["ids"] for document in documents]
        else:
            encode = load_tokenizer(model).encode
            every = [[start, *encode(document["text"])] for document in documents]
        windows = [ids[:positions] for ids in every]
    else:
        ids, step = load_tokenizer(model).encode(content), positions - 1
        windows = [[start, *ids[at : at + step]] for at in range(0, len(ids), step)]
    sequences = [np.array(window, np.int64) for window in windows if len(window) > 1]
    if not sequences:
        raise ValueError(f"{path}: no text to score")
    if limit is None:
        return sequences
    ends = np.cumsum([len(sequence) - 1 for sequence in sequences])
    return sequences[: int(np.searchsorted(ends, limit)) + 1]


def context(model: str | Path) -> tuple[int, int]:
    """The most positions of a model, by its `config.json`, and its start token."""
    config = json.loads((Path(model) / "config.json").read_text())
    config = config.get("text_config", config)
    positions = config.get("max_position_embeddings") or config.get("n_positions") or LONGEST
    start = config.get("bos_token_id")
    return min(positions, LONGEST), (start[0] if isinstance(start, list) else start or 0)


def batches(sequences: list[Ids], tokens: int = 4096) -> list[Batch]:
    """Sequences of like length side by side: ids `[B, T]`, and which of them are predicted.

    Shorter sequences are filled up at the end, where a causal model does not see it.
    """
    result = []
    rest = sorted(sequences, key=len, reverse=True)
    while rest:
        width = len(rest[0])
        count = max(1, tokens // width)
        part, rest = rest[:count], rest[count:]
        ids = np.zeros((len(part), width), np.int64)
        real = np.zeros((len(part), width), np.bool_)
        for row, sequence in enumerate(part):
            ids[row, : len(sequence)] = sequence
            real[row, 1 : len(sequence)] = True
        result.append((ids, real))
    return result
