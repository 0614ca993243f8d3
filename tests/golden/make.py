"""Makes the golden files, from `docs/format.md` alone: nothing here imports flexq.

`python tests/golden/make.py` writes them beside this file. They are committed, and tests
compare them with what this script, flexq and the Rust crate make today: a difference means
that old files are read or written otherwise than when they were made.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import xxhash
from numpy.typing import NDArray

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))
import oracle  # noqa: E402

STORED = {"uint8": "U8", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "int64": "I64"}
ALIGNMENT = 64


@dataclass(frozen=True)
class Weight:
    """Floats `[..., N, K]` to quantize."""

    floats: NDArray[Any]
    group: int | str = 128
    rule: str = "absmax32s"
    scale: str = "float16"

    def parts(self) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """Packed codes and scales."""
        *stack, k = self.floats.shape
        rows = self.floats.reshape(int(np.prod(stack)), k)
        q = oracle.quantize(rows, self.group, self.rule, self.scale)
        codes, scales = oracle.pack(q.codes), q.scales
        return codes.reshape(*stack, codes.shape[1]), scales.reshape(*stack, scales.shape[1])

    def description(self) -> dict[str, Any]:
        """What the manifest says."""
        return {
            "shape": list(self.floats.shape),
            "dtype": STORED[self.floats.dtype.name],
            "bits": 6,
            "group": self.group,
            "rule": self.rule,
            "scale": STORED[self.scale],
        }


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def encode(tensors: dict[str, Weight | NDArray[Any]], metadata: dict[str, str]) -> bytes:
    """The bytes of a file of these tensors."""
    stored: list[tuple[str, NDArray[Any]]] = []
    for name, tensor in tensors.items():
        if isinstance(tensor, Weight):
            codes, scales = tensor.parts()
            stored += [(f"{name}_packed", codes), (f"{name}_scale", scales)]
        else:
            stored.append((name, tensor))
    # whole multiples of 64 bytes first, then by size of element, else as they came
    stored.sort(key=lambda item: 0 if item[1].nbytes % ALIGNMENT == 0 else 64 - item[1].itemsize)

    entries, data = {}, b""
    for name, array in stored:
        end = len(data) + array.nbytes
        entries[name] = {
            "dtype": STORED[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [len(data), end],
        }
        data += array.tobytes()
    checksums = {name: xxhash.xxh3_64(array.tobytes()).hexdigest() for name, array in stored}
    manifest = {
        "version": 1,
        "tensors": {
            name: tensor.description()
            for name, tensor in sorted(tensors.items())
            if isinstance(tensor, Weight)
        },
        "xxh3": dict(sorted(checksums.items())),
        "header": "0" * 16,
    }

    def header() -> bytes:
        every = dict(sorted({**metadata, "flexq": compact(manifest)}.items()))
        text = compact({"__metadata__": every, **entries}).encode()
        text += b" " * (-(8 + len(text)) % ALIGNMENT)
        return len(text).to_bytes(8, "little") + text

    manifest["header"] = xxhash.xxh3_64(header()).hexdigest()
    return header() + data


def ramp(*shape: int) -> NDArray[np.float32]:
    """Small numbers without pattern, the same everywhere: exact in float32 and bfloat16."""
    state, out = 1, []
    for _ in range(int(np.prod(shape))):
        state = state * 1103515245 + 12345 & 0x7FFFFFFF
        out.append(((state >> 16) % 255 - 127) / 256)
    return np.array(out, np.float32).reshape(shape)


TENSORS: dict[str, dict[str, Weight | NDArray[Any]]] = {
    "smallest-v1.safetensors": {"w": Weight(np.arange(-4, 4, dtype=np.float32).reshape(1, 8))},
    "every-kind-v1.safetensors": {
        "norm.weight": np.array([1, -2, 0.5, 3], ml_dtypes.bfloat16),
        "linear.weight": Weight(ramp(3, 172)),
        "row.weight": Weight(ramp(2, 70).astype(ml_dtypes.bfloat16), "row", "mse", "bfloat16"),
        "experts.gate_up_proj": Weight(ramp(2, 4, 64).astype(np.float16), 32, "absmax31"),
        "steps": np.array(7, np.int64),
        "zeros.weight": Weight(np.zeros((2, 256), np.float32), 256),
        "empty.weight": Weight(np.zeros((0, 128), np.float32), 64),
    },
}


def files() -> dict[str, bytes]:
    """The golden files by name."""
    return {name: encode(tensors, {"format": "pt"}) for name, tensors in TENSORS.items()}


def hex_dump(content: bytes) -> str:
    """Offset, sixteen bytes, and the characters among them, a line."""
    lines = []
    for start in range(0, len(content), 16):
        part = content[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:08x}  {part.hex(' '):47}  |{text}|")
    return "\n".join(lines)


if __name__ == "__main__":
    for file, content in files().items():
        (FOLDER / file).write_bytes(content)
        print(file, len(content))
