"""Loading a packed model: peak memory and time, beside safetensors' own for the same bytes.

    python benches/generate/load.py --shape llama-3.1-8b --directory /tmp/packed

Writes a model of random codes (preset `full`), then loads it in a process of its own: with
transformers, and tensor by tensor with safetensors. Memory is the peak of what a process holds
itself (anonymous pages) and of all of it (pages of the file, which the system may drop, too),
both above what it held before. The file is in the page cache unless `--cold`.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from flexq.torch.policy import Activations
from models import SHAPES, fill, pack_empty, skeleton

SHARD = 4 << 30


def write(shape: str, directory: Path, device: str = "cpu", layers: int | None = None) -> None:
    """A packed directory as `flexq-pack` lays it out, without checksums.

    Args:
        shape: of the model.
        directory: to be made.
        device: where random numbers are made, layer by layer of the model.
        layers: fewer than the model has.
    """
    from flexq.transformers import FlexQConfig
    from safetensors.torch import save_file

    model = skeleton(shape, layers)
    pack_empty(model, Activations())
    for module in model.modules():
        if not list(module.children()):
            fill(module.to_empty(device=device)).cpu()
    model.config.quantization_config = FlexQConfig(preset="full")
    model.config.architectures = [type(model).__name__]
    directory.mkdir(parents=True)
    model.config.save_pretrained(directory)
    shards: list[dict] = [{}]
    for name, tensor in model.state_dict().items():
        if sum(t.nbytes for t in shards[-1].values()) + tensor.nbytes > SHARD:
            shards.append({})
        shards[-1][name] = tensor
    files = {f"model-{i + 1:05}-of-{len(shards):05}.safetensors": s for i, s in enumerate(shards)}
    for file, tensors in files.items():
        save_file(tensors, directory / file, {"format": "pt"})
    weight_map = {name: file for file, tensors in files.items() for name in tensors}
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def memory() -> tuple[int, int]:
    """Anonymous and all resident bytes of this process."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    anonymous, whole = (int(fields[key].split()[0]) << 10 for key in ("RssAnon", "VmRSS"))
    return anonymous, whole


class Peak:
    """The most memory held while it is open, above what was held before."""

    def __enter__(self) -> "Peak":
        self.start = self.most = memory()
        self.done = False
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self) -> None:
        while not self.done:
            self.most = tuple(map(max, self.most, memory()))
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        self.done = True
        self.thread.join()
        self.gib = [round((m - s) / 2**30, 3) for m, s in zip(self.most, self.start, strict=True)]


def load(kind: str, directory: Path, device: str) -> dict:
    """Loads in this process and tells what it took."""
    import flexq.transformers  # noqa: F401
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    files = sorted(directory.glob("*.safetensors"))
    if device != "cpu":
        torch.zeros(1, device=device)
    with Peak() as peak:
        start = time.perf_counter()
        if kind == "safetensors":
            held = [load_file(file, device=device) for file in files]
            if device == "cpu":
                # mapped, not read: take what a program that uses them takes
                held = [{name: t.clone() for name, t in tensors.items()} for tensors in held]
        else:
            held = AutoModelForCausalLM.from_pretrained(directory, device_map=device)
        if device != "cpu":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    result = {"kind": kind, "device": device, "seconds": round(seconds, 2)}
    result |= {"anonymous_gib": peak.gib[0], "resident_gib": peak.gib[1]}
    if device != "cpu":
        result["gpu_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
    if kind != "safetensors":
        tokens = torch.arange(8, device=device).view(1, 8)
        with torch.no_grad(), Peak() as using:
            start = time.perf_counter()
            assert held(tokens).logits.isfinite().all()
            result["first_forward_s"] = round(time.perf_counter() - start, 2)
        # a CPU reads mapped weights when it first uses them
        most = (a - b for a, b in zip(using.most, peak.start, strict=True))
        own, whole = (round(size / 2**30, 3) for size in most)
        result |= {"anonymous_with_forward_gib": own, "resident_with_forward_gib": whole}
    return result


def main() -> None:
    """Writes the model where there is none, then measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="qwen2.5-0.5b", choices=SHAPES)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--devices", nargs="+", default=["cpu"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="drop the files from the page cache")
    parser.add_argument("--kind", choices=["flexq", "safetensors"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    directory = arguments.directory
    if arguments.kind:
        print(json.dumps(load(arguments.kind, directory, arguments.devices[0])))
        return
    if not directory.exists():
        write(arguments.shape, directory)
    files = list(directory.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    print(f"{arguments.shape}: {size / 2**30:.3f} GiB packed")
    for device in arguments.devices:
        for _ in range(arguments.repeats):
            for kind in ("safetensors", "flexq"):
                for file in files if arguments.cold else []:
                    with file.open("rb") as stream:
                        os.fsync(stream.fileno())
                        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                command = [sys.executable, "-W", "ignore", __file__, "--kind", kind]
                command += ["--directory", str(directory), "--devices", device]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                print(done.stdout.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
