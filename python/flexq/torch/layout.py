"""Sizes and shapes of a packed weight, and how settings are written down."""

from dataclasses import dataclass

import torch

GROUP_SIZES = (32, 64, 128, 256)
SCALE_RULES = ("absmax31", "absmax32s", "mse")
SCALE_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16}

WHOLE_ROW = 0
"""The group size, as operators take it, that stands for one scale per row."""


@dataclass(frozen=True)
class Scheme:
    """How weights are quantized.

    Attributes:
        group_size: columns that share a scale: 32, 64, 128, 256, or 0 for a whole row.
        scale_rule: `absmax31`, `absmax32s` or `mse`.
        scale_dtype: `torch.float16` or `torch.bfloat16`.
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
            raise ValueError(f"scale_dtype: expected float16 or bfloat16, found {self.scale_dtype}")


def parse_group_size(stored: int | str) -> int:
    """The group size an operator takes from the one a configuration stores (a number or `row`)."""
    return WHOLE_ROW if stored == "row" else Scheme(int(stored)).group_size


def format_group_size(group_size: int) -> int | str:
    """The inverse of `parse_group_size`."""
    return "row" if group_size == WHOLE_ROW else group_size


def row_bytes(columns: int) -> int:
    """Bytes of a packed row of `columns` 6-bit codes."""
    return (columns * 6 + 7) // 8


def groups(columns: int, group_size: int) -> int:
    """Scales of a row of `columns` columns."""
    width = group_size or max(columns, 1)
    return -(-columns // width)
