"""Which layers multiply with 8-bit activations and which with 6.

A policy is a default and overrides by name. It is stored in `config.json` as
`quantization_config.act_bits` and `quantization_config.act_bits_overrides`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ACT_BITS = (16, 8, 6)
"""Widths an activation can have; 16 stands for activations as they are."""


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern selects a module.

    A pattern is the module's full name, a suffix of it that starts at a dot
    (`down_proj` selects `model.layers.0.mlp.down_proj`), or `re:` and a regular
    expression that must match from the start of the name.
    """
    if pattern.startswith("re:"):
        return re.match(pattern[3:], name) is not None
    return name == pattern or name.endswith("." + pattern)


@dataclass(frozen=True)
class Policy:
    """Activation bits by module name.

    Attributes:
        act_bits: 16, 8 or 6, for every module that no override selects.
        overrides: bits by pattern (see `matches`); the first pattern that matches counts.

    Raises:
        ValueError: for other widths.
    """

    act_bits: int = 16
    overrides: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for place, bits in [("act_bits", self.act_bits), *self.overrides.items()]:
            if bits not in ACT_BITS:
                raise ValueError(f"{place}: expected 16, 8 or 6 bits, found {bits!r}")

    def bits(self, name: str) -> int:
        """Activation bits of the module `name` (without `.weight`)."""
        for pattern, bits in self.overrides.items():
            if matches(pattern, name):
                return bits
        return self.act_bits

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Policy:
        """Reads the two keys from a policy file's or a `quantization_config`'s content.

        Where they say "auto", which leaves the choice to the runtime, it is 16 here.
        """

        def width(bits: Any) -> Any:
            return 16 if bits == "auto" else bits

        overrides = config.get("act_bits_overrides", {})
        return cls(
            width(config.get("act_bits", 16)),
            {pattern: width(bits) for pattern, bits in overrides.items()},
        )

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """Reads a policy file, or a model directory's `config.json`.

        Raises:
            OSError: if there is no such file.
            ValueError: if it is no JSON object or holds other widths.
        """
        path = Path(path)
        content = json.loads((path / "config.json" if path.is_dir() else path).read_text())
        if not isinstance(content, dict):
            raise ValueError(f"{path}: expected a JSON object, found {type(content).__name__}")
        return cls.from_config(content.get("quantization_config") or content)

    def to_config(self) -> dict[str, Any]:
        """The keys that `from_config` reads."""
        return {"act_bits": self.act_bits, "act_bits_overrides": dict(self.overrides)}

    def save(self, path: str | Path) -> None:
        """Writes a policy file for `flexq-pack pack --policy FILE`."""
        Path(path).write_text(json.dumps(self.to_config(), indent=2) + "\n")


PAPER = Policy(6, {"re:.*down_proj$": 8})
"""The FlexQ paper's choice: the MLP's last projection at 8 bits, the rest at 6."""
