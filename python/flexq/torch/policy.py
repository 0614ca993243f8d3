"""How many bits activations get.

16 bits multiply the activations as they are; 8 and 6 quantize them per row and
group of columns, so that integer units do the product. `auto` decides per call.
"""

from collections.abc import Mapping

from flexq.policy import ACT_BITS, matches

AUTO = 0
"""The number that stands for `auto` in operators."""

INT8_ROWS = {"cpu": 3, "cuda": 65}
"""From this many rows on, integer products pay for quantizing the activations.

Below it the product is bound by reading weights, which 8-bit activations do not
shorten, so `auto` keeps the exact activations.
"""


def parse(act_bits: int | str) -> int:
    """Operators' number for a setting: 16, 8, 6 or `auto`."""
    if act_bits == "auto":
        return AUTO
    if act_bits not in (AUTO, *ACT_BITS):
        raise ValueError(f"act_bits: expected 'auto', 16, 8 or 6, found {act_bits!r}")
    return int(act_bits)


def spell(act_bits: int) -> int | str:
    """The setting that `parse` reads as `act_bits`."""
    return "auto" if act_bits == AUTO else act_bits


def resolve(act_bits: int, rows: int, device: str) -> int:
    """Bits of the activations of one call.

    Args:
        act_bits: 16, 8, 6 or `AUTO`.
        rows: rows of the activation matrix.
        device: `cpu` or `cuda`.
    """
    if act_bits != AUTO:
        return act_bits
    return 8 if rows >= INT8_ROWS[device] else 16


def for_module(name: str, default: int | str, overrides: Mapping[str, int | str]) -> int:
    """The setting of one module: that of the first override matching its name, else `default`.

    Patterns are those of `flexq.policy.matches`.
    """
    for pattern, act_bits in overrides.items():
        if matches(pattern, name):
            return parse(act_bits)
    return parse(default)
