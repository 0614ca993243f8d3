"""Text to score a model on, as token ids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flexq.eval.llama import LlamaConfig
from flexq.eval.tokenizer import Tokenizer

Ids = npt.NDArray[np.int64]


def load_text(
    path: str | Path, config: LlamaConfig, tokenizer: Tokenizer | None, limit: int | None = None
) -> list[Ids]:
    """Sequences of token ids, each led by the start token and scored on its own.

    A plain text is cut into windows of the model's context. In a `.jsonl` file every line
    is a document: `ids` if the line has them, else `text`.

    Args:
        path: the file.
        config: gives the start token and the longest window.
        tokenizer: needed unless the file stores ids.
        limit: predicted tokens after which to stop, counted in whole sequences.

    Raises:
        ValueError: if the file holds nothing to predict, or needs a tokenizer and has none.
    """
    path = Path(path)
    documents = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else None
    sequences: list[Ids] = []
    if documents is None:
        ids = _encode(path.read_text(encoding="utf-8"), tokenizer)
        step = config.positions - 1
        for start in range(0, len(ids), step):
            sequences.append(np.array([config.bos, *ids[start : start + step]], np.int64))
    for line in documents or []:
        document = json.loads(line)
        ids = document.get("ids") or [config.bos, *_encode(document["text"], tokenizer)]
        sequences.append(np.array(ids[: config.positions], np.int64))
    sequences = [sequence for sequence in sequences if len(sequence) > 1]
    if not sequences:
        raise ValueError(f"{path}: no text to score")
    if limit is None:
        return sequences
    ends = np.cumsum([len(sequence) - 1 for sequence in sequences])
    return sequences[: int(np.searchsorted(ends, limit)) + 1]


def _encode(text: str, tokenizer: Tokenizer | None) -> list[int]:
    if tokenizer is None:
        raise ValueError("text without ids needs the model's tokenizer.json")
    return tokenizer.encode(text)


def batches(sequences: list[Ids], tokens: int = 4096) -> list[tuple[Ids, npt.NDArray[np.bool_]]]:
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
