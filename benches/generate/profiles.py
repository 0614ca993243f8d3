"""Where the time of a step goes on a GPU: its kernels, by name and in order."""

import csv
import statistics
from collections.abc import Callable
from pathlib import Path

import torch


def profile(call: Callable, steps: int = 5, path: Path | None = None) -> None:
    """Prints the kernels of a call, by time.

    Args:
        call: a step.
        steps: how often to call it.
        path: file for the kernels of the last step, one after the other, in us.
    """
    from torch.profiler import ProfilerActivity

    with torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            call()
        torch.cuda.synchronize()
    kernels = [e for e in profiler.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    kernels.sort(key=lambda kernel: kernel.time_range.start)
    totals: dict[str, list[float]] = {}
    for kernel in kernels:
        totals.setdefault(kernel.name[:90], []).append(kernel.device_time)
    busy = sum(map(sum, totals.values())) / steps
    first, last = kernels[0].time_range.start, max(k.time_range.end for k in kernels)
    print(f"  kernels {busy:.0f} us of {(last - first) / steps:.0f} us a step")
    for name, times in sorted(totals.items(), key=lambda item: -sum(item[1]))[:25]:
        count = len(times) / steps
        print(
            f"  {sum(times) / steps:8.1f} us {count:6.1f} x {statistics.median(times):7.2f}  {name}"
        )
    if path is not None:
        step = kernels[-len(kernels) // steps :]
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("start", "time", "kernel"))
            start = step[0].time_range.start
            writer.writerows((k.time_range.start - start, k.device_time, k.name[:90]) for k in step)
