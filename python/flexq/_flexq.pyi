from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, Self, SupportsIndex, TypeAlias, final

import numpy as np
from numpy.typing import DTypeLike, NDArray

_Array: TypeAlias = NDArray[Any]
_Rule: TypeAlias = str
_FloatName: TypeAlias = Literal["float32", "float16", "bfloat16"]
_ScaleName: TypeAlias = Literal["float16", "bfloat16", "pair"]
_GroupSize: TypeAlias = int | Literal["row"]

__version__: str

class FormatError(ValueError): ...
class NonFiniteError(ValueError): ...
class CudaError(RuntimeError): ...

@final
class CudaTensor:
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def device(self) -> str: ...

def cuda_info() -> list[dict[str, Any]]: ...

@final
class QTensor:
    @classmethod
    def from_parts(
        cls,
        packed: NDArray[np.uint8],
        scales: _Array,
        shape: Sequence[int],
        group_size: _GroupSize = 128,
        rule: _Rule = "absmax32s",
        scale_dtype: _ScaleName = "float16",
        dtype: _FloatName = "float32",
    ) -> Self: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def dtype(self) -> _FloatName: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def bits_per_weight(self) -> float: ...
    @property
    def group_size(self) -> _GroupSize: ...
    @property
    def scale_rule(self) -> _Rule: ...
    @property
    def scale_dtype(self) -> _ScaleName: ...
    @property
    def scales(self) -> _Array: ...
    @property
    def packed(self) -> NDArray[np.uint8]: ...
    def codes(self, *, threads: int | None = None) -> NDArray[np.int8]: ...
    def dequantize(
        self,
        dtype: DTypeLike | None = None,
        out: _Array | None = None,
        *,
        threads: int | None = None,
    ) -> _Array: ...
    def unpaired(self) -> Self: ...
    def to(self, device: str) -> CudaTensor: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: slice | SupportsIndex, /) -> Self: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, memo: object, /) -> Self: ...

def quantize(
    w: _Array,
    group_size: _GroupSize = 128,
    *,
    rule: _Rule = "absmax32s",
    scale_dtype: _ScaleName = "float16",
    dtype: _FloatName | None = None,
    threads: int | None = None,
) -> QTensor: ...
def matmul(
    x: _Array,
    q: QTensor | CudaTensor,
    *,
    act_bits: int = 16,
    act_group: _GroupSize = 128,
    out: _Array | None = None,
    out_dtype: DTypeLike | None = None,
    dtype: _FloatName | None = None,
    threads: int | None = None,
    device: str | None = None,
    kernel: str | None = None,
) -> _Array: ...
def embedding(
    ids: NDArray[np.integer[Any]],
    q: QTensor,
    dtype: DTypeLike = "float32",
    *,
    threads: int | None = None,
) -> _Array: ...

_Path: TypeAlias = str | PathLike[str]
_Progress: TypeAlias = Callable[[int, int], object]

@final
class Reader:
    def __new__(cls, path: _Path) -> Self: ...
    def names(self) -> list[str]: ...
    def contains(self, name: str) -> bool: ...
    def stored(self) -> list[tuple[str, str, list[int]]]: ...
    def metadata(self) -> dict[str, str]: ...
    def get(self, name: str) -> QTensor | _Array: ...

def save_file(
    tensors: Mapping[str, QTensor | _Array], path: _Path, metadata: dict[str, str] | None = None
) -> None: ...
def pack(
    input: _Path,
    output: _Path,
    preset: str,
    include: list[str],
    exclude: list[str],
    group_size: _GroupSize,
    rule: str,
    scale_dtype: str,
    policy: str,
    threads: int | None,
    force: bool,
    progress: _Progress | None,
) -> str: ...
def plan(
    path: _Path,
    preset: str,
    include: list[str],
    exclude: list[str],
    group_size: _GroupSize,
    rule: str,
    scale_dtype: str,
) -> str: ...
def unpack(
    input: _Path,
    output: _Path,
    dtype: str | None,
    threads: int | None,
    force: bool,
    progress: _Progress | None,
) -> str: ...
def export(
    input: _Path, output: _Path, threads: int | None, force: bool, progress: _Progress | None
) -> str: ...
def import_(
    input: _Path, output: _Path, threads: int | None, force: bool, progress: _Progress | None
) -> str: ...
def seal(
    path: _Path,
    weights: dict[str, list[int]],
    dtype: str,
    group_size: _GroupSize,
    rule: str,
    scale_dtype: str,
) -> None: ...
def inspect(path: _Path, scan: bool) -> str: ...
def verify(path: _Path) -> str: ...
def run_cli(arguments: Sequence[str]) -> int: ...

# for flexq.torch: memory by address, with the number of its type

_Floats: TypeAlias = tuple[int, int]
_Weight: TypeAlias = tuple[int, int, int, int, int, int]

def cpu_linear(
    x: tuple[int, int, int],
    w: _Weight,
    act_bits: int,
    per_row: bool,
    out: _Floats,
    threads: int,
) -> None: ...
def cpu_embedding(indices: tuple[int, int], w: _Weight, out: _Floats, threads: int) -> None: ...
def cpu_dequantize(w: _Weight, out: _Floats, threads: int) -> None: ...
def cpu_quantize(source: _Floats, w: _Weight, rule: str, threads: int) -> None: ...
def select(
    tensors: Sequence[tuple[str, Sequence[int]]],
    preset: str,
    include: Sequence[str],
    exclude: Sequence[str],
    model_type: str | None,
    hidden_size: int | None,
) -> list[str | None]: ...

# the same on a GPU, after its ordinal and the stream to launch on

def cuda_sizes(n: int, k: int, columns: int) -> tuple[int, int]: ...
def cuda_workspace(
    ordinal: int,
    w: _Weight,
    rows: int,
    x_type: int,
    act_bits: int,
    per_row: bool,
    experts: int | None = None,
) -> tuple[int, int]: ...
def cuda_choice(
    ordinal: int,
    w: _Weight,
    x: tuple[int, int, int, int],
    act_bits: int,
    per_row: bool,
    kernel: str | None = None,
) -> tuple[str, int]: ...
def cuda_trigger_late(late: bool) -> None: ...
def cuda_exact_sums(exact: bool) -> None: ...
def cuda_repack(ordinal: int, stream: int, source: tuple[int, int], w: _Weight) -> None: ...
def cuda_restore(ordinal: int, stream: int, w: _Weight, to: tuple[int, int]) -> None: ...
def cuda_dequantize(ordinal: int, stream: int, w: _Weight, y: _Floats) -> None: ...
def cuda_embedding(
    ordinal: int, stream: int, w: _Weight, rows: tuple[int, int], y: _Floats
) -> None: ...
def cuda_linear(
    ordinal: int,
    stream: int,
    w: _Weight,
    x: tuple[int, int, int, int],
    bias: _Floats | None,
    y: _Floats,
    act_bits: int,
    per_row: bool,
    workspace: tuple[int, int],
    kernel: str | None = None,
) -> None: ...
def cuda_grouped_linear(
    ordinal: int,
    stream: int,
    w: _Weight,
    ends: tuple[int, int],
    x: tuple[int, int, int, int],
    y: _Floats,
    act_bits: int,
    per_row: bool,
    workspace: tuple[int, int],
) -> None: ...
