"""Sizes and shapes of a packed weight, and how settings are written down."""

from dataclasses import dataclass

import torch

GROUP_SIZES = (32, 64, 128, 256)
SCALE_RULES = ("absmax31", "absmax32s", "mse")
PAIR = torch.uint16
"""The type of words that hold two scales: one for each half of a group (docs/format.md)."""

SCALE_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "PAIR": PAIR}
PAIRED_GROUPS = (32, 64, 128)

WHOLE_ROW = 0
"""The group size, as operators take it, that stands for one scale per row."""


@dataclass(frozen=True)
class Scheme:
    """How weights are quantized.

    Attributes:
        group_size: columns that share a scale: 32, 64, 128, 256, or 0 for a whole row.
        scale_rule: `absmax31`, `absmax32s` or `mse`.
        scale_dtype: `torch.float16`, `torch.bfloat16`, or `torch.uint16` for words of two scales.
    """

    group_size: int = 128
    scale_rule: str = "absmax32s"
    scale_dtype: torch.dtype = torch.float16

    def __post_init__(self) -> None:
        if self.group_size not in (*GROUP_SIZES, WHOLE_ROW):
            raise ValueError(f"group_size: expected 32, 64, 128, 256 or 0, found {self.group_size}")
        if self.scale_rule not in SCALE_RULES:
            raise ValueError(
                f"scale_rule: expected one of {', '.join(SCALE_RULES)}, found {self.scale_rule!r}"
            )
        if self.scale_dtype not in SCALE_DTYPES.values():
            raise ValueError(
                "scale_dtype: expected float16, bfloat16 or uint16 (pairs), "
                f"found {self.scale_dtype}"
            )
        if self.scale_dtype == PAIR and self.group_size not in PAIRED_GROUPS:
            raise ValueError(
                f"group_size: with pairs of scales expected 32, 64 or 128, found {self.group_size}"
            )

    @property
    def scale_name(self) -> str:
        """`F16`, `BF16` or `PAIR`."""
        return next(name for name, dtype in SCALE_DTYPES.items() if dtype == self.scale_dtype)


def parse_group_size(stored: int | str) -> int:
    """The group size an operator takes from the one a configuration stores (a number or `row`)."""
    return WHOLE_ROW if stored == "row" else Scheme(int(stored)).group_size


def format_group_size(group_size: int) -> int | str:
    """The inverse of `parse_group_size`."""
    return "row" if group_size == WHOLE_ROW else group_size


def unpair(words: torch.Tensor, columns: int, group: int) -> tuple[torch.Tensor, int]:
    """Scales of the half groups `[..., groups]` in float16, and their width.

    Args:
        words: `[..., words]`, uint16.
        columns: of the weight.
        group: columns of a word.
    """
    bits = words.to(torch.int32)
    first = (bits & 0x7FC0) >> 1
    second = (first + ((bits & 31) - 16) * 64).clamp_min(0)
    halves = torch.stack((bits & 0x8000 | first, bits << 10 & 0x8000 | second), dim=-1)
    scales = halves.to(torch.int16).view(torch.float16).flatten(-2)
    return scales[..., : groups(columns, group // 2)], group // 2


def row_bytes(columns: int) -> int:
    """Bytes of a packed row of `columns` 6-bit codes."""
    return (columns * 6 + 7) // 8


def groups(columns: int, group_size: int) -> int:
    """Scales of a row of `columns` columns."""
    width = group_size or max(columns, 1)
    return -(-columns // width)
