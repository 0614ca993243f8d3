"""GPUs: whether there is one, and which.

q = flexq.quantize(w).to("cuda")      # stays on the GPU, in the order its kernels read
y = flexq.matmul(x, q)                # x in float16 or bfloat16
"""

from dataclasses import dataclass

from flexq import _flexq
from flexq._flexq import CudaError, CudaTensor

__all__ = ["CudaError", "CudaTensor", "Gpu", "exact_sums", "info", "is_available", "why_not"]


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


def exact_sums(exact: bool) -> None:
    """Chooses how products add that are launched from now on, by the whole process.

    With int8 activations, one scale a row, float16 scales of weights and output of 16 bits, tiles
    of 256 rows on Hopper add the sums of 128 columns with an error of about 3e-5 of the output's
    root mean square, or 1e-4 if all scales have one sign; float16 itself rounds by 2e-4, and
    quantizing the activations costs a hundred times as much. They do not where `exact`, and take
    longer. Output in float32, and every other kernel of int8 activations, is exact to float32 in
    either case. Both ways give the same bits in every run.

    Args:
        exact: whether such sums, too, shall be exact to float32; false unless asked for.
    """
    _flexq.cuda_exact_sums(exact)
