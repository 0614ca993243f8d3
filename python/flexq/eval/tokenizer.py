"""Text to token ids and back, for the tokenizer.json of a model directory.

Byte-level byte-pair encoding (GPT-2's scheme, which Llama 3, Qwen and the Austen model
share in kind) is done here; any other tokenizer needs the package `tokenizers`.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

# GPT-2's splitting, with Python's classes: letters are \w without digits and underscore.
_WORDS = re.compile(
    r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+",
)


class Tokenizer(Protocol):
    """What evaluation needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without start or end tokens."""

    def decode(self, ids: list[int]) -> str:
        """The text of token ids."""


def _byte_letters() -> dict[int, str]:
    """The printable letter that stands for each byte in a byte-level vocabulary."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    return letters | {byte: chr(256 + place) for place, byte in enumerate(others)}


class ByteLevelBpe:
    """Byte-pair encoding over bytes, as GPT-2 does it."""

    def __init__(self, description: dict[str, Any]) -> None:
        model = description["model"]
        self._ids: dict[str, int] = model["vocab"]
        pairs = [tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self._letters = _byte_letters()
        bytes_of = {letter: byte for byte, letter in self._letters.items()}
        self._bytes = {
            number: bytes(bytes_of[letter] for letter in token)
            for token, number in self._ids.items()
            if all(letter in bytes_of for letter in token)
        }
        for token in description.get("added_tokens", []):
            self._bytes[token["id"]] = b"" if token["special"] else token["content"].encode()
        self._word = lru_cache(maxsize=1 << 16)(self._encode_word)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; special tokens spelled out in it are plain text."""
        return [number for word in _WORDS.findall(text) for number in self._word(word)]

    def decode(self, ids: list[int]) -> str:
        """The text of token ids; special tokens are left out."""
        return b"".join(self._bytes[number] for number in ids).decode(errors="replace")

    def _encode_word(self, word: str) -> tuple[int, ...]:
        parts = [self._letters[byte] for byte in word.encode()]
        while len(parts) > 1:
            ranks = [self._ranks.get(pair, len(self._ranks)) for pair in pairwise(parts)]
            best = min(ranks)
            if best == len(self._ranks):
                break
            at = ranks.index(best)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return tuple(self._ids[part] for part in parts)


class _LibraryTokenizer:
    """The package `tokenizers`, without the special tokens it adds."""

    def __init__(self, path: Path) -> None:
        import tokenizers

        self._tokenizer = tokenizers.Tokenizer.from_file(str(path))

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids))


def load_tokenizer(model: str | Path) -> Tokenizer:
    """The tokenizer of a model directory.

    Raises:
        OSError: if the directory has no `tokenizer.json`.
        ImportError: if it is no byte-level tokenizer and `tokenizers` is not installed.
    """
    path = Path(model) / "tokenizer.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    splitting = description.get("pre_tokenizer") or {}
    # Llama 3 and Qwen split words by patterns of their own before the byte-level step.
    plain = splitting.get("type") == "ByteLevel" and not splitting.get("add_prefix_space")
    if plain and description.get("normalizer") is None:
        return ByteLevelBpe(description)
    return _LibraryTokenizer(path)
