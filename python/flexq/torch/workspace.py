"""Scratch memory of products on a GPU, and who may use it when.

Each GPU has one workspace, which its products use one after the other: one that comes on another
stream than the last waits for that. It is never moved or freed, since captured graphs hold its
address. Graphs are replayed by torch, without our knowing: let no graph run beside a product, or
another graph, on another stream.
"""

import threading

import torch
from torch import Tensor, cuda

LEAST = 32 << 20
"""Bytes of a workspace that is made for less."""

lock = threading.Lock()
"""Held from `of` until the product is launched, so that no other thread's comes in between."""

_held: dict[int, list[Tensor]] = {}
_last: dict[int, tuple[int, cuda.Stream]] = {}


def of(ordinal: int, stream: int, size: int) -> tuple[int, int]:
    """Address and bytes of the workspace of a GPU, at least `size`, for a launch on `stream`.

    `stream` is the raw handle of the current one.

    Raises:
        RuntimeError: a larger workspace is needed amid the capture of a graph.
    """
    last = _last.get(ordinal)
    if last is None or last[0] != stream:
        with cuda.device(ordinal):
            _follow(ordinal, stream, last)
    held = _held.get(ordinal)
    if not held or held[-1].numel() < size:
        held = _grow(ordinal, size)
    return held[-1].data_ptr(), held[-1].numel()


def reserve(device: torch.device, size: int) -> None:
    """Makes the workspace of a GPU hold at least `size` bytes."""
    ordinal = device.index if device.index is not None else cuda.current_device()
    with lock, cuda.device(ordinal):
        of(ordinal, cuda.current_stream().cuda_stream, size)


def _follow(ordinal: int, stream: int, last: tuple[int, cuda.Stream] | None) -> None:
    """Lets the current stream wait for what the last one does with the workspace."""
    if cuda.is_current_stream_capturing():
        # nothing runs now, and a captured stream cannot wait for one that is not
        return
    current = cuda.current_stream()
    if last is not None and not _is_capturing(last[1]):
        current.wait_stream(last[1])
    _last[ordinal] = stream, current


def _is_capturing(stream: cuda.Stream) -> bool:
    with cuda.stream(stream):
        return cuda.is_current_stream_capturing()


def _grow(ordinal: int, size: int) -> list[Tensor]:
    with cuda.device(ordinal):
        if cuda.is_current_stream_capturing():
            # its counters would be zero only once the graph has run
            raise RuntimeError(
                f"a product needs a workspace of {size} bytes, which cannot be made while a graph "
                "is captured: call flexq.torch.prepare, or the product once, beforehand"
            )
        held = _held.setdefault(ordinal, [])
        held.append(torch.zeros(max(2 * size, LEAST), dtype=torch.uint8, device=f"cuda:{ordinal}"))
    return held
