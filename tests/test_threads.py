"""Threads: whose they are, and that a forked process has its own."""

import subprocess
import sys
from pathlib import Path

import checkpoints
import pytest

# every case runs in a process of its own, which prints what must hold
PRODUCT = """
import os, sys, tempfile, time
from pathlib import Path
import numpy as np
import flexq

q = flexq.quantize(np.ones((4096, 256), np.float32), threads=1)
x = np.ones((1, 256), np.float32)
one = flexq.matmul(x, q, threads=1)

def product():
    return np.array_equal(flexq.matmul(x, q, threads=3), one)

def everything():
    levels = q.dequantize(threads=2)
    again = flexq.quantize(levels, threads=2)
    same = np.array_equal(again.packed, q.packed)
    rows = flexq.embedding(np.arange(4096), q, threads=2)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "w.safetensors"
        flexq.save_file({"v": q, "w": q}, file)
        intact = flexq.verify(file)["intact"]
        scanned = len(flexq.inspect(file)["tensors"]) == 2
    return product() and same and np.array_equal(rows, levels) and intact and scanned

def helpers(expected):
    for _ in range(1000):
        tasks = Path("/proc/self/task").glob("*/comm")
        if sum(task.read_text() == "flexq\\n" for task in tasks) == expected:
            return True
        # a new thread gets its name a little later
        time.sleep(0.01)
"""
TORCH = """
import torch
from flexq.torch import cpu

torch.set_num_threads(3)
weight = torch.ones(4096, 256)
xs = torch.ones(1, 256)

def product_of_tensors():
    packed, scale = cpu.quantize(weight, 128, "absmax32s", torch.float16)
    y = cpu.linear(xs, packed, scale, None, 4096, 128, 16)
    return np.array_equal(y.numpy(), one)
"""
PACK = """
def packed():
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "packed"
        flexq.pack(sys.argv[1], output, threads=2)
        intact = flexq.verify(output)["intact"]
        return intact and [file.read_bytes() for file in sorted(output.glob("*.safetensors"))]

first = packed()
"""
FORK = """
child = os.fork()
if child == 0:
    os._exit(0 if in_child() else 1)
print(os.waitpid(child, 0)[1] == 0)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")


def run(code: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


def test_helpers_are_there_when_asked_for() -> None:
    assert run(PRODUCT + "print(helpers(0), product(), helpers(2))") == ["True"] * 3


def test_a_forked_process_has_its_own() -> None:
    child = "in_child = lambda: helpers(0) and everything() and helpers(2)\n"
    assert run(PRODUCT + child + "print(everything())" + FORK) == ["True", "True"]


def amid(work: str, in_child: str, forks: int) -> str:
    """Code that forks so often while another thread works, whatever that holds at the moment."""
    code = f"""
import threading, warnings
warnings.simplefilter("ignore")
go_on = True
def work():
    while go_on:
        {work}
thread = threading.Thread(target=work)
thread.start()
in_child = lambda: {in_child}
for _ in range({forks}):
"""
    code += "\n".join("    " + line for line in FORK.strip().splitlines())
    return code + "\ngo_on = False\nthread.join()"


def test_a_fork_amid_products() -> None:
    assert run(PRODUCT + amid("product()", "product() and product()", 50)) == ["True"] * 50


def test_a_forked_process_packs(tmp_path: Path) -> None:
    source = checkpoints.write_mixture(tmp_path / "model")
    child = "in_child = lambda: helpers(0) and packed() == first and product() and helpers(2)\n"
    code = PRODUCT + PACK + child + "print(bool(first) and everything())" + FORK
    assert run(code, str(source)) == ["True"] * 2


def test_a_fork_amid_packing(tmp_path: Path) -> None:
    source = checkpoints.write_mixture(tmp_path / "model")
    code = PRODUCT + PACK + amid("packed()", "packed() == first and product()", 20)
    assert run(code + "\nprint(bool(first))", str(source)) == ["True"] * 21


def test_tensors_are_multiplied_by_torch_s_threads() -> None:
    pytest.importorskip("torch")
    code = PRODUCT + TORCH + "print(product_of_tensors(), helpers(0), product(), helpers(2))"
    assert run(code) == ["True"] * 4


@pytest.mark.parametrize("before", ["product_of_tensors()", "bool(weight.exp().all())"])
def test_a_forked_process_does_not_wait_for_torch_s_threads(before: str) -> None:
    """Whoever used them first."""
    pytest.importorskip("torch")
    child = "in_child = lambda: product_of_tensors() and helpers(2)\n"
    assert run(PRODUCT + TORCH + child + f"print({before})" + FORK) == ["True", "True"]
