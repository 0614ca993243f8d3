"""How many bits activations get.

16 bits multiply the activations as they are; 8 and 6 quantize them per row and
group of columns, so that integer units do the product. `auto` decides per call.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flexq.policy import ACT_BITS, matches

AUTO = 0
"""The number that stands for `auto` in operators."""

COLUMNS, ROW, AUTO_GROUP = 128, 0, -1
"""The numbers that stand for scales per 128 columns, per row, and `auto` in operators."""

INT8_ROWS = {"cpu": 3, "cuda": 129}
"""From this many rows on, integer products pay for quantizing the activations.

Below it the product is bound by reading weights, which 8-bit activations do not shorten, so
`auto` keeps the exact activations.
"""

AUTO_GROUPS = {"cpu": COLUMNS, "cuda": ROW}
"""Where `act_bits` and `act_group` are both `auto`: on a GPU, scales per 128 columns cost in the
product what integers save, on a CPU nothing (`benches/generate/record`)."""


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


def resolve(act_bits: int, act_group: int, rows: int, device: str) -> tuple[int, bool]:
    """Bits of the activations of one call, and whether a row has one scale.

    Args:
        act_bits: 16, 8, 6 or `AUTO`.
        act_group: `COLUMNS`, `ROW` or `AUTO_GROUP`, which is `COLUMNS` unless `act_bits` is
            `AUTO` too.
        rows: rows of the activation matrix.
        device: `cpu` or `cuda`.
    """
    if act_bits != AUTO:
        return act_bits, act_group == ROW
    if act_group == AUTO_GROUP:
        act_group = AUTO_GROUPS[device]
    # per 128 columns a GPU gains nothing
    pays = rows >= INT8_ROWS[device] and act_group in (AUTO_GROUPS[device], ROW)
    return (8, act_group == ROW) if pays else (16, False)


def parse_group(act_group: int | str) -> int:
    """Operators' number for a setting of `act_group`: 128, `row` or `auto`."""
    numbers = {128: COLUMNS, "row": ROW, "auto": AUTO_GROUP}
    if act_group not in numbers:
        raise ValueError(f"act_group: expected 128, 'row' or 'auto', found {act_group!r}")
    return numbers[act_group]


@dataclass(frozen=True)
class Activations:
    """How products treat activations.

    Attributes:
        bits: `auto`, 16, 8 or 6.
        overrides: bits by pattern, as `flexq.policy.matches` takes them; the first match counts.
        group: columns per scale: 128, `row` or `auto`.
    """

    bits: int | str = "auto"
    overrides: Mapping[str, int | str] = field(default_factory=dict)
    group: int | str = "auto"

    def bits_of(self, module: str) -> int | str:
        """The setting of the module of that name."""
        found = (bits for pattern, bits in self.overrides.items() if matches(pattern, module))
        return next(found, self.bits)

    def check_matched(self, modules: Iterable[str]) -> None:
        """Raises unless every override selects one of the modules.

        Raises:
            ValueError: naming the first that does not.
        """
        names = list(modules)
        for pattern in self.overrides:
            if not any(matches(pattern, name) for name in names):
                raise ValueError(f"act_bits_overrides: {pattern!r} matches no quantized layer")
