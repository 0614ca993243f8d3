"""Whole checkpoints: pack, look into, check and convert them.

The functions do what `flexq-pack` does. They take a Hugging Face directory or a safetensors
file and write one of the same kind; Ctrl-C stops them between chunks, and the same call
takes up the files that were finished.
"""

import json
import sys
from collections.abc import Callable, Iterable
from os import PathLike
from typing import Any, Literal

from flexq import _flexq

Path = str | PathLike[str]
Progress = bool | Callable[[int, int], object]
Report = dict[str, Any]


def _callback(progress: Progress) -> Callable[[int, int], object]:
    """What is called with the bytes done and the bytes in all."""
    if callable(progress):
        return progress

    def show(done: int, total: int) -> None:
        if progress:
            end = "\n" if done >= total else ""
            share = done / total if total else 1.0
            print(
                f"\r{done / 1e9:.2f} of {total / 1e9:.2f} GB, {share:.0%}", end=end, file=sys.stderr
            )

    return show


def pack(
    input: Path,
    output: Path,
    *,
    preset: Literal["linear", "full"] = "linear",
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    group_size: int | Literal["row"] = 128,
    rule: Literal["absmax31", "absmax32s", "mse"] = "absmax32s",
    scale_dtype: Literal["float16", "bfloat16", "pair"] = "float16",
    policy: str = "auto",
    threads: int | None = None,
    force: bool = False,
    progress: Progress = False,
) -> Report:
    """Quantizes a checkpoint to 6 bits.

    Args:
        input: a directory or file with floats; it is not touched.
        output: what to write.
        preset: "linear" layers and experts, or "full": also embeddings and lm_head.
        include: patterns of more to quantize: a name, the end of one, or `re:...`.
        exclude: patterns of what to keep; they win over `include`.
        group_size: columns per scale: 32, 64, 128, 256 or "row".
        rule: how scales are found.
        scale_dtype: how scales are stored; "pair" has one for each half of a group.
        policy: bits of activations for config.json: "auto", "paper" or a JSON file.
        threads: how many may work; all of the machine by default. The bytes are the same.
        force: replace an output that exists.
        progress: True prints to stderr; a callable gets `(done, total)` in bytes, from any
            thread, and stops the work by raising.

    Returns:
        What became of every tensor, sizes, and what it took: the same as `flexq-pack --json`,
        whose fields `docs/cli.md` lists.

    Raises:
        ValueError: wrong options, an output that exists, or nothing to quantize.
        NonFiniteError: a weight holds a NaN or an infinity; the message says where.
        FormatError: a malformed input.
        OSError: reading or writing failed.
    """
    return _parse(
        _flexq.pack(
            input,
            output,
            preset,
            list(include),
            list(exclude),
            group_size,
            rule,
            scale_dtype,
            policy,
            threads,
            force,
            _callback(progress),
        )
    )


def plan(
    path: Path,
    *,
    preset: Literal["linear", "full"] = "linear",
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    group_size: int | Literal["row"] = 128,
    rule: Literal["absmax31", "absmax32s", "mse"] = "absmax32s",
    scale_dtype: Literal["float16", "bfloat16", "pair"] = "float16",
) -> Report:
    """Predicts what `pack` would write, to the byte, without writing anything.

    Args:
        path: a checkpoint, or a `config.json` (or a directory with only that): then the sizes
            are those of the model it describes, saved as one file.
        preset: as in `pack`, like all that follow.
        include: see `pack`.
        exclude: see `pack`.
        group_size: see `pack`.
        rule: see `pack`.
        scale_dtype: see `pack`.

    Returns:
        The report of `pack`, without `work`.

    Raises:
        ValueError: wrong options, or a configuration that does not tell the sizes.
        OSError: reading failed.
    """
    return _parse(
        _flexq.plan(path, preset, list(include), list(exclude), group_size, rule, scale_dtype)
    )


def unpack(
    input: Path,
    output: Path,
    *,
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress = False,
) -> Report:
    """Turns a packed checkpoint back into floats, by default of the types it had."""
    return _parse(_flexq.unpack(input, output, dtype, threads, force, _callback(progress)))


def export(
    input: Path,
    output: Path,
    *,
    threads: int | None = None,
    force: bool = False,
    progress: Progress = False,
) -> Report:
    """Writes a packed checkpoint for compressed-tensors 0.18 or later, codes unchanged."""
    return _parse(_flexq.export(input, output, threads, force, _callback(progress)))


def import_(
    input: Path,
    output: Path,
    *,
    threads: int | None = None,
    force: bool = False,
    progress: Progress = False,
) -> Report:
    """Takes over a 6-bit checkpoint of compressed-tensors, codes and scales as they are."""
    return _parse(_flexq.import_(input, output, threads, force, _callback(progress)))


def inspect(path: Path, *, scan: bool = True) -> Report:
    """Tells where the bytes of any safetensors checkpoint go.

    Args:
        path: a directory or file, ours or anybody's.
        scan: read the codes too, to see which levels occur.

    Returns:
        Totals, the cause of every byte, what could be smaller, and each tensor.
    """
    return _parse(_flexq.inspect(path, scan))


def verify(path: Path) -> Report:
    """Checks every bit of a packed checkpoint.

    Returns:
        `intact`, and for each of `files` a sentence in `faults` for everything found.

    Raises:
        FormatError: a damaged header, or a file without checksums.
    """
    return _parse(_flexq.verify(path))


def _parse(document: str) -> Report:
    report: Report = json.loads(document)
    return report
