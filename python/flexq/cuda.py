"""GPUs: whether there is one, and which.

q = flexq.quantize(w).to("cuda")      # stays on the GPU, in the order its kernels read
y = flexq.matmul(x, q)                # x in float16 or bfloat16
"""

from dataclasses import dataclass

from flexq import _flexq
from flexq._flexq import CudaError, CudaTensor

__all__ = ["CudaError", "CudaTensor", "Gpu", "info", "is_available", "why_not"]


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    index: int
    name: str
    capability: tuple[int, int]
    multiprocessors: int
    memory: int
    """Bytes."""
    l2: int
    """Bytes of level-2 cache."""


def info() -> list[Gpu]:
    """Every GPU that flexq can use.

    Raises:
        CudaError: no driver, an old one, or no GPU.
    """
    return [Gpu(**gpu) for gpu in _flexq.cuda_info()]


def why_not() -> str | None:
    """The reason why no GPU can be used, or `None` if one can."""
    try:
        return None if info() else "the driver knows no GPU"
    except CudaError as error:
        return str(error)


def is_available() -> bool:
    """Whether a GPU can be used."""
    return why_not() is None
