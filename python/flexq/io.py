"""Files: tensors by name, read when asked for."""

from collections.abc import Iterator, Mapping
from os import PathLike, fspath
from typing import Any

from numpy.typing import NDArray

from flexq import _flexq
from flexq._flexq import QTensor

Tensor = QTensor | NDArray[Any]


class TensorFile(Mapping[str, Tensor]):
    """The tensors of an opened file or directory, by logical name, in stored order.

    Opening reads headers only. A tensor is made when it is asked for: a `QTensor` or a
    read-only array over the memory-mapped file, which it keeps open; nothing is copied.
    The file must not be written to meanwhile (replacing it by renaming is harmless).
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = fspath(path)
        self._reader = _flexq.Reader(self._path)

    @property
    def metadata(self) -> dict[str, str]:
        """The strings in the header; under "flexq" lies the manifest."""
        return self._reader.metadata()

    def __getitem__(self, name: str) -> Tensor:
        return self._reader.get(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._reader.contains(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._reader.names())

    def __len__(self) -> int:
        return len(self._reader.names())

    def __repr__(self) -> str:
        return f"TensorFile({self._path!r}, {len(self)} tensors)"


def load_file(path: str | PathLike[str]) -> TensorFile:
    """Opens a safetensors file, ours or any other, or a directory of them.

    bfloat16 tensors are `ml_dtypes.bfloat16` arrays where that package is installed, and
    uint16 arrays of their bits otherwise; the 8-bit floats likewise, with uint8.

    Raises:
        OSError: it cannot be opened.
        FormatError: it is malformed.
    """
    return TensorFile(path)


def save_file(
    tensors: Mapping[str, Tensor],
    path: str | PathLike[str],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes tensors to a safetensors file, quantized ones and plain arrays alike.

    The file appears under its name complete or not at all. Two runs give the same bytes.

    Args:
        tensors: names and what they stand for; a quantized `X` is stored as `X_packed`
            and `X_scale`.
        path: the file; one that exists is replaced.
        metadata: strings for the header.

    Raises:
        OSError: it cannot be written, for instance on a full disk.
        ValueError: names that clash, or an array of a type that safetensors cannot hold.
    """
    _flexq.save_file(tensors, path, None if metadata is None else dict(metadata))
