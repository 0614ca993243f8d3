"""A packed model on several GPUs beside one: are the logits the same, and what does a step take?

    python benches/generate/parallel.py --shape llama-30b --directory /dev/shm/packed
    torchrun --nproc-per-node 2 benches/generate/parallel.py --directory /dev/shm/packed

The first writes the model and keeps its logits beside it, for the second to compare with. Sums
that are added in another order differ in the last bits of bfloat16 and the layers amplify that, so
both also tell how far they are from the logits of the same weights with float32 activations.
Without a GPU both run on the CPU, with a smaller `--shape` or fewer `--layers`.
"""

import argparse
import os
import time
from pathlib import Path

import flexq.transformers  # noqa: F401
import torch
from load import write
from models import SHAPES
from profiles import profile
from run import median
from steps import Decode
from torch import Tensor, distributed
from transformers import AutoModelForCausalLM

KEPT = "logits.pt"


def difference(found: Tensor, expected: Tensor) -> str:
    """How far logits are from others."""
    error = (found - expected).norm() / expected.norm()
    same = (found.argmax(-1) == expected.argmax(-1)).float().mean()
    return f"relative difference {error:.2e}, same first choice {same:.1%}"


@torch.no_grad()
def logits(model, tokens: Tensor) -> Tensor:
    """Of every token, on the CPU."""
    return model(tokens).logits.float().cpu()


def main() -> None:
    """Loads on the GPUs there are processes for; rank 0 prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="llama-30b", choices=SHAPES)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--profile", action="store_true", help="where the time of a step goes")
    arguments = parser.parse_args()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    directory, kept = arguments.directory, arguments.directory / KEPT
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    device = f"cuda:{rank}" if kind == "cuda" else "cpu"
    if kind == "cuda":
        torch.cuda.set_device(device)
    if not directory.exists():
        write(arguments.shape, directory, device, arguments.layers)
    if kind == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    places = {"device_map": device} if world == 1 else {"tp_plan": "auto"}
    model = AutoModelForCausalLM.from_pretrained(directory, **places)
    if not rank:
        print(f"loaded in {time.perf_counter() - start:.1f} s")
    tokens = torch.arange(64, device=device).view(2, 32)
    found = logits(model, tokens)
    if world > 1 and not rank:
        alone = torch.load(kept)
        print(f"{world} processes beside one:", difference(found, alone[0]))
        print(f"{world} processes beside float32:", difference(found, alone[1]))
    for batch in arguments.batch:
        step = Decode(model, batch, kind, "plain")
        for _ in range(arguments.repeats):
            step.call()
        # every process as often as the others, whose sums it waits for
        seconds = median(step.call, kind, arguments.repeats, warm_s=0)
        if arguments.profile:
            profile(step.call)
        if not rank:
            took = f"{seconds * 1e3:.2f} ms a step, graph {step.known['graph']}"
            print(f"{world} x {kind}, batch {batch}: {took}")
        # before the connections that its graph uses
        del step
    if not rank and kind == "cuda":
        print(f"peak {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB on the first")
    if world == 1:
        del model
        exact = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, **places)
        exact = logits(exact, tokens)
        print("one process beside float32:", difference(found, exact))
        torch.save((found, exact), kept)
    if world > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
