"""Time packing beside other packers of the same weights, in one run.

    python benches/pack/rivals.py CHECKPOINT [--llama-quantize BINARY] [--compressed-tensors PYTHON]
        [--mlx PYTHON] [--threads 2] [--rounds 2] [--out FILE.csv]

CHECKPOINT is what `checkpoint.py` writes with `--shards 1`. Every packer gets all its matrices, the
embedding too, and every round runs each once: flexq-pack, copying, llama-quantize to Q6_K (from
a GGUF file of the same bfloat16 numbers, written before; this needs the package `gguf`),
compressed-tensors and MLX at 6 bits in groups of 128 (PYTHON can import it). Inputs are in the
page cache. Rates of those in Python leave out the start of Python and its imports.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from bench import MLX, remove, size

# reads, quantizes as its own observer does with minima and maxima, packs and writes
COMPRESSED_TENSORS = """
import sys, torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import load_file, save_file
torch.set_num_threads(int(sys.argv[3]))
args = QuantizationArgs(num_bits=6, symmetric=True, strategy="group", group_size=128)
start = time.perf_counter()
out = {}
for name, w in load_file(sys.argv[1]).items():
    if w.ndim == 2:
        groups = w.unflatten(1, (-1, 128))
        scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), args)
        codes = quantize(w, scale, zero, args, dtype=torch.int8)
        out |= {name + "_packed": pack_to_int32(codes, 6), name + "_scale": scale}
    else:
        out[name] = w
save_file(out, sys.argv[2])
"""

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(checkpoint: Path, path: Path) -> None:
    """The same tensors as a model of llama.cpp, norms in f32 as it wants them."""
    import gguf

    config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text())
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(config["vocab_size"])
    for file in sorted(checkpoint.glob("*.safetensors")):
        raw = np.memmap(file, np.uint8, "r")
        length = int(raw[:8].view(np.uint64)[0])
        for name, entry in json.loads(raw[8 : 8 + length].tobytes()).items():
            start, end = (8 + length + at for at in entry["data_offsets"])
            part = name.removesuffix(".weight")
            if part.startswith("model.layers."):
                layer, part = part.removeprefix("model.layers.").split(".", 1)
                target = f"blk.{layer}.{NAMES[part]}.weight"
            else:
                target = f"{NAMES[part]}.weight"
            data = raw[start:end]
            if len(entry["shape"]) == 1:
                bits = data.view(np.uint16).astype(np.uint32) << 16
                writer.add_tensor(target, bits.view(np.float32))
            else:
                rows = data.reshape(entry["shape"][0], -1)
                writer.add_tensor(target, rows, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@dataclass
class Packer:
    name: str
    command: list[str]
    input_bytes: int
    output: Path
    seconds: list[float] = field(default_factory=list)
    process_seconds: list[float] = field(default_factory=list)
    output_bytes: int = 0

    def run(self) -> None:
        """Once; Python programs tell how long they took after their imports."""
        start = time.perf_counter()
        done = subprocess.run(self.command, capture_output=True, text=True)
        whole = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(f"{self.command}: {done.stderr[-2000:]}")
        inside = [line for line in done.stdout.splitlines() if line.startswith("inside ")]
        self.process_seconds.append(whole)
        self.seconds.append(float(inside[-1].split()[1]) if inside else whole)
        self.output_bytes = size(self.output)
        remove(self.output)
        subprocess.run(["sync"], check=True)


def timed(python: str, program: str, *arguments: str) -> list[str]:
    """A program of Python whose time counts from the line after its imports."""
    if "start = " not in program:
        head, _, rest = program.partition("out = {}\n")
        program = f"{head}start = time.perf_counter()\nout = {{}}\n{rest}"
    end = '\nprint("inside", time.perf_counter() - start)\n'
    return [python, "-c", "import time\n" + program + end, *arguments]


def packers(arguments: argparse.Namespace) -> list[Packer]:
    checkpoint: Path = arguments.checkpoint
    shard = next(iter(checkpoint.glob("*.safetensors")))
    output = checkpoint.with_name(checkpoint.name + "-out")
    file = output.with_suffix(".safetensors")
    total, threads = size(shard), str(arguments.threads)
    options = ["--quiet", "pack", "--preset", "full", "--threads", threads]
    found = [
        Packer("cp -r", ["cp", "-r", str(checkpoint), str(output)], total, output),
        Packer(
            "flexq-pack", [arguments.binary, *options, str(checkpoint), str(output)], total, output
        ),
    ]
    if arguments.llama_quantize:
        source, target = checkpoint.with_suffix(".gguf"), output.with_suffix(".gguf")
        write_gguf(checkpoint, source)
        command = [arguments.llama_quantize, str(source), str(target), "Q6_K", threads]
        found.append(Packer("llama-quantize Q6_K", command, size(source), target))
    if arguments.compressed_tensors:
        command = timed(
            arguments.compressed_tensors, COMPRESSED_TENSORS, str(shard), str(file), threads
        )
        found.append(Packer("compressed-tensors", command, total, file))
    if arguments.mlx:
        found.append(Packer("MLX", timed(arguments.mlx, MLX, str(shard), str(file)), total, file))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--binary", default="target/release/flexq-pack")
    parser.add_argument("--llama-quantize", metavar="BINARY")
    parser.add_argument("--compressed-tensors", metavar="PYTHON")
    parser.add_argument("--mlx", metavar="PYTHON")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = packers(arguments)
    for file in [*arguments.checkpoint.iterdir(), *arguments.checkpoint.parent.glob("*.gguf")]:
        file.read_bytes()
    subprocess.run(["sync"], check=True)
    for _ in range(arguments.rounds):
        for packer in found:
            packer.run()
    ours = found[1]
    rate = ours.input_bytes / statistics.median(ours.seconds)
    rows = []
    for packer in found:
        median = statistics.median(packer.seconds)
        rows.append(
            {
                "packer": packer.name,
                "input_bytes": packer.input_bytes,
                "output_bytes": packer.output_bytes,
                "seconds": round(median, 3),
                "process_seconds": round(statistics.median(packer.process_seconds), 3),
                "input_gb_per_second": round(packer.input_bytes / median / 1e9, 3),
                "flexq_is_faster_by": round(rate / packer.input_bytes * median, 2),
            }
        )
        print(*rows[-1].values(), sep="\t")
    arguments.checkpoint.with_suffix(".gguf").unlink(missing_ok=True)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
