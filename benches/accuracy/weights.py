"""Relative RMS error of 6-bit weights on real tensors, by setting, beside Q6_K.

    pip install gguf pywhispercpp
    python benches/accuracy/weights.py examples/austen/model

Q6_K comes twice: from ggml's own code, in the library inside the package `pywhispercpp`, and
from `q6_k.py`, which looks for the least error in that format. Rows that are no multiple of 256
long are given to both end to end. The `best` rows are an exhaustive search of one half-precision
scale a group, which says how much the `mse` rule leaves. Every float matrix of a file or
directory counts, each pooled. `--chart FILE` draws bits against error, `--json FILE` keeps the
figures.
"""

import argparse
import ctypes
import importlib.metadata
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import flexq
import numpy as np
import q6_k
from flexq.eval.checkpoint import to_float32
from flexq.eval.report import print_table

Matrices = dict[str, np.ndarray]
RoundTrip = Callable[[np.ndarray], np.ndarray]
RULES = ("absmax31", "absmax32s", "mse")
GROUPS = (256, 128, 64, 32)
PAIRED = (128, 64, 32)
EXHAUSTIVE = (128, 32)
FACTORS = np.linspace(0.65, 1.6, 400)
Q6_K = 14
Q6_K_BYTES = 210


def ggml() -> ctypes.CDLL:
    """The ggml library that pywhispercpp carries."""
    files = importlib.metadata.files("pywhispercpp") or []
    for file in files:
        if file.name.startswith("libggml-base") and ".libs" in str(file):
            library = ctypes.CDLL(str(file.locate()))
            library.ggml_quantize_chunk.restype = ctypes.c_size_t
            library.ggml_quantize_init(Q6_K)
            return library
    raise ImportError("libggml-base not found: pip install pywhispercpp")


def by_ggml(library: ctypes.CDLL, w: np.ndarray) -> np.ndarray:
    """`w` after a round trip through ggml's Q6_K."""
    from gguf import GGMLQuantizationType, quants

    flat = np.ascontiguousarray(w, np.float32).ravel()
    flat = np.pad(flat, (0, -len(flat) % q6_k.WIDTH))
    blocks = len(flat) // q6_k.WIDTH
    out = np.zeros(blocks * Q6_K_BYTES, np.uint8)
    written = library.ggml_quantize_chunk(
        Q6_K,
        flat.ctypes.data_as(ctypes.c_void_p),
        out.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int64(0),
        ctypes.c_int64(blocks),
        ctypes.c_int64(q6_k.WIDTH),
        None,
    )
    if written != len(out):
        raise RuntimeError(f"ggml wrote {written} bytes, expected {len(out)}")
    rows = out.reshape(blocks, Q6_K_BYTES)
    back = quants.dequantize(rows, GGMLQuantizationType.Q6_K).ravel()
    return back[: w.size].reshape(w.shape)


def by_exhaustion(w: np.ndarray, group: int) -> np.ndarray:
    """`w` with the best of 400 half-precision scales a group, of the sign that `mse` has."""
    columns = w.shape[1]
    parts = np.pad(w, ((0, 0), (0, -columns % group))).reshape(-1, group)
    largest = np.take_along_axis(parts, np.abs(parts).argmax(1, keepdims=True), 1)
    best, least = np.zeros_like(parts), np.full((len(parts), 1), np.inf, np.float32)
    for factor in FACTORS.astype(np.float32):
        scale = (largest / -32 * factor).astype(np.float16).astype(np.float32)
        steps = np.divide(parts, scale, out=np.zeros_like(parts), where=scale != 0)
        values = np.clip(np.rint(steps), -32, 31) * scale
        error = np.square(values - parts).sum(1, keepdims=True)
        best = np.where(error < least, values, best)
        least = np.minimum(error, least)
    return best.reshape(w.shape[0], -1)[:, :columns]


def matrices(path: Path) -> Matrices:
    """Float matrices of a file or directory."""
    tensors = flexq.load_file(path)
    return {name: to_float32(tensor) for name, tensor in tensors.items() if tensor.ndim == 2}


def relative_error(tensors: Matrices, round_trip: RoundTrip) -> float:
    """RMS error over RMS, pooled over tensors."""
    error = sum(np.square(round_trip(w) - w, dtype=np.float64).sum() for w in tensors.values())
    power = sum(np.square(w, dtype=np.float64).sum() for w in tensors.values())
    return float(np.sqrt(error / power))


def measure(library: ctypes.CDLL, tensors: Matrices) -> list[tuple[str, float, float]]:
    """(setting, bits a weight, relative RMS error) of every setting."""
    rows = []
    weights = sum(w.size for w in tensors.values())
    settings = [(group, rule, "float16") for group in GROUPS for rule in RULES]
    settings += [(group, rule, "pair") for group in PAIRED for rule in RULES]
    for group, rule, scales in settings:
        packed = {
            name: flexq.quantize(w, group, rule=rule, scale_dtype=scales)
            for name, w in tensors.items()
        }
        bits = 8 * sum(q.nbytes for q in packed.values()) / weights
        values = iter([q.dequantize() for q in packed.values()])
        name = f"g{group} {rule}" + (" pair" if scales == "pair" else "")
        rows.append((name, bits, relative_error(tensors, lambda _, values=values: next(values))))
    for group in EXHAUSTIVE:
        error = relative_error(tensors, partial(by_exhaustion, group=group))
        rows.append((f"g{group} best", 6 + 16 / group, error))
    rows.append(("Q6_K, own", q6_k.BITS, relative_error(tensors, q6_k.round_trip)))
    rows.append(("Q6_K, ggml", q6_k.BITS, relative_error(tensors, partial(by_ggml, library))))
    return rows


def draw(path: Path, results: dict[str, list[tuple[str, float, float]]]) -> None:
    """Bits against error, one panel a model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(results), 3.8), layout="constrained")
    for index, (name, rows) in enumerate(results.items()):
        axis = figure.add_subplot(1, len(results), index + 1)
        for line, marker in [(rule, "o") for rule in RULES] + [("mse pair", "s")]:
            points = [
                (bits, 100 * error) for key, bits, error in rows if key.split(" ", 1)[1] == line
            ]
            axis.plot(*zip(*points, strict=True), marker=marker, label=f"flexq {line}")
        for key, marker in (("Q6_K, ggml", "k*"), ("Q6_K, own", "kx")):
            ((bits, error),) = [(bits, 100 * error) for name, bits, error in rows if name == key]
            axis.plot(bits, error, marker, markersize=9, label=key)
        axis.set_title(name, loc="left")
        axis.set_xlabel("bits a weight")
        axis.set_ylabel("relative RMS error, %")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, nargs="+", help="safetensors file or model directory")
    parser.add_argument("--chart", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    library, results = ggml(), {}
    for path in arguments.path:
        tensors = matrices(path)
        name = path.parent.name if path.name in ("model", "model.safetensors") else path.name
        results[name] = measure(library, tensors)
        weights = sum(w.size for w in tensors.values())
        rows = [[key, f"{bits:.4f}", f"{error:.3%}"] for key, bits, error in results[name]]
        print_table(f"{name}: {weights:,} weights", ["setting", "bits", "error"], rows)
    if arguments.chart:
        draw(arguments.chart, results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
