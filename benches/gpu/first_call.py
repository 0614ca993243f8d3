"""What the first calls cost in a new process, compilation of PTX by the driver included.

    python benches/gpu/first_call.py

The driver's cache is off, as on a fresh machine. A model needs: its weights in device order,
products of few rows (generation) and of many (prompts), at one precision of activations.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time


def measure(act_bits: int) -> None:
    """In a new process: seconds of each first call."""
    import torch
    from contenders import Ours
    from weights import Weight

    torch.ones(1, device="cuda").sum().item()  # CUDA itself is up before the clock starts
    total = 0.0
    weight = None
    for what in ("order", 1, 16, 32, 512):
        start = time.perf_counter()
        if weight is None:
            weight = Weight(4096, 4096)
        else:
            x = torch.zeros(int(what), 4096, device="cuda").half()
            Ours(weight, x, "A16" if act_bits == 16 else "A8")(0)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        total += seconds
        print(f"  {what if what == 'order' else f'M {what}'}: {seconds:.2f} s")
    print(f"A{act_bits}: {total:.2f} s in all")


def main() -> int:
    """Each precision in a process of its own."""
    if len(sys.argv) > 1:
        measure(int(sys.argv[1]))
        return 0
    environment = os.environ | {"CUDA_CACHE_DISABLE": "1"}
    for act_bits in (16, 8):
        command = [sys.executable, __file__, str(act_bits)]
        subprocess.run(command, env=environment, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
