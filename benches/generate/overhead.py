"""What a call costs the host: microseconds of Python, dispatch and launch, without a graph.

python benches/generate/overhead.py
"""

import time

import torch
from flexq.torch import FlexQLinear, prepare
from torch import nn

CALLS = 2000


def main() -> None:
    """Times calls whose work on the GPU is shorter than they are."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dense = nn.Linear(256, 256, bias=False, dtype=torch.bfloat16, device=device)
    packed = prepare(FlexQLinear.from_linear(dense, act_bits=16))
    x = torch.randn(1, 256, dtype=torch.bfloat16, device=device)
    with torch.no_grad():
        for name, layer in (("nn.Linear bf16", dense), ("FlexQLinear W6A16", packed)):
            for _ in range(100):
                layer(x)
            start = time.perf_counter()
            for _ in range(CALLS):
                layer(x)
            print(
                f"{name}: {(time.perf_counter() - start) / CALLS * 1e6:.1f} us a call on {device}"
            )


if __name__ == "__main__":
    main()
