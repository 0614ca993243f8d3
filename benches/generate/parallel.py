"""A packed model on several GPUs beside one: are the logits the same, and what does a step take?

    python benches/generate/parallel.py --shape llama-30b --directory /dev/shm/packed
    torchrun --nproc-per-node 2 benches/generate/parallel.py --directory /dev/shm/packed

The first writes the model and keeps its logits beside it, for the second to compare with. There is
no record of a run yet.
"""

import argparse
import os
from pathlib import Path

import flexq.transformers  # noqa: F401
import torch
from load import write
from models import SHAPES
from run import decode
from transformers import AutoModelForCausalLM


def main() -> None:
    """Loads on the GPUs there are processes for; rank 0 prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="llama-30b", choices=SHAPES)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    arguments = parser.parse_args()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    directory, device = arguments.directory, f"cuda:{rank}"
    torch.cuda.set_device(device)
    if world == 1:
        if not directory.exists():
            write(arguments.shape, directory, "cuda", arguments.layers)
        model = AutoModelForCausalLM.from_pretrained(directory, device_map=device)
    else:
        model = AutoModelForCausalLM.from_pretrained(directory, tp_plan="auto")
    tokens = torch.arange(64, device=device).view(2, 32)
    with torch.no_grad():
        logits = model(tokens).logits.float()
    kept = directory / "logits.pt"
    if world == 1:
        torch.save(logits.cpu(), kept)
    results = [decode(model, batch, "cuda", 20, False, False) for batch in arguments.batch]
    if rank:
        return
    if world > 1:
        alone = torch.load(kept)
        error = (logits.cpu() - alone).norm() / alone.norm()
        same = (logits.cpu().argmax(-1) == alone.argmax(-1)).float().mean()
        print(f"difference of the logits {error:.2e}, same first choice {same:.1%}")
    peak = torch.cuda.max_memory_allocated() / 2**30
    for batch, result in zip(arguments.batch, results, strict=True):
        print(
            f"{world} GPUs, batch {batch}: {result['decode_s'] * 1e3:.2f} ms a step, "
            f"graph {result['graph']}, peak {peak:.2f} GiB on the first"
        )


if __name__ == "__main__":
    main()
