"""Drivers that are missing, old or broken are ordinary errors; a C stub plays the driver."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# every function answers success and writes nothing, but for those that a mode changes
STUB = r"""
#include <stdlib.h>
#include <string.h>
static int is(const char *mode) { return !strcmp(getenv("STUB_MODE"), mode); }
#ifdef EMPTY
int cuSomethingElse(void) { return 0; }
#else
#define OK(name) int name() { return 0; }
int cuDriverGetVersion(int *v) { *v = is("old") ? 11040 : 12020; return 0; }
int cuInit(unsigned f) { return is("no-device") ? 100 : 0; }
int cuGetErrorName(int e, const char **s) { *s = "CUDA_ERROR_OF_THE_STUB"; return 0; }
int cuGetErrorString(int e, const char **s) { *s = "because it is a stub"; return 0; }
int cuDeviceGetCount(int *n) { *n = 1; return 0; }
int cuDeviceGet(int *d, int n) { *d = n; return 0; }
int cuDeviceGetName(char *s, int n, int d) { strcpy(s, "Stub"); return 0; }
int cuDeviceTotalMem_v2(size_t *n, int d) { *n = 1 << 30; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) {
  *v = a == 75 ? (is("turing") ? 7 : 8) : a == 76 ? (is("turing") ? 5 : 6) : 99 * 1024;
  return 0;
}
int cuDevicePrimaryCtxRetain(void **c, int d) { *c = (void *)1; return 0; }
int cuMemAlloc_v2(unsigned long long *p, size_t n) { *p = 1 << 20; return is("full") ? 2 : 0; }
int cuModuleLoadData(void **m, const void *image) {
  return is("ptx") ? 222 : is("works") ? 0 : 700;
}
OK(cuCtxPopCurrent_v2) OK(cuCtxPushCurrent_v2) OK(cuFuncGetAttribute) OK(cuFuncSetAttribute)
OK(cuLaunchKernelEx) OK(cuMemFree_v2) OK(cuMemcpyDtoHAsync_v2) OK(cuMemcpyHtoDAsync_v2)
OK(cuMemsetD8Async) OK(cuModuleGetFunction) OK(cuStreamSynchronize)
#ifndef PARTIAL
OK(cuTensorMapEncodeTiled)
#endif
#endif
"""

USE = """
import numpy as np
import flexq, flexq.cuda

q = flexq.quantize(np.ones((4, 256), np.float32))
try:
    print(flexq.cuda.info())
    q.to("cuda")
except flexq.CudaError as error:
    print("CudaError:", error)
assert flexq.matmul(np.ones((1, 256), np.float32), q).shape == (1, 4)  # the CPU goes on
"""


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with a stub: whole, without one function, and without any."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler for a stub of the driver")
    folders = {}
    for name, define in (("whole", "WHOLE"), ("partial", "PARTIAL"), ("empty", "EMPTY")):
        folder = tmp_path_factory.mktemp(name)
        (folder / "stub.c").write_text(STUB)
        for library in ("libcuda.so", "libcuda.so.1"):
            options = ["-w", "-shared", "-fPIC", f"-D{define}", "-o", library]
            subprocess.run([compiler, *options, "stub.c"], cwd=folder, check=True)
        folders[name] = folder
    return folders


def run(mode: str, library: Path | None, program: str = USE) -> str:
    environment = os.environ | {"STUB_MODE": mode}
    if library:
        environment["LD_LIBRARY_PATH"] = str(library)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # a panic or an abort would show here
    return done.stdout


@pytest.mark.parametrize(
    ("library", "mode", "message"),
    [
        ("empty", "", "the NVIDIA driver is too old: it supports CUDA unknown, 12.0 is needed"),
        ("partial", "", "the NVIDIA driver is too old: it supports CUDA 12.2, 12.0 is needed"),
        ("whole", "old", "the NVIDIA driver is too old: it supports CUDA 11.4, 12.0 is needed"),
        ("whole", "no-device", "no GPU: the driver answered CUDA_ERROR_OF_THE_STUB (100)"),
        ("whole", "turing", "GPU 0 has compute capability 7.5; 8.0 is the least that works"),
        ("whole", "full", "out of GPU memory"),
        ("whole", "ptx", "the NVIDIA driver is too old: it supports CUDA 12.2"),
        ("whole", "broken", "cuModuleLoadData: CUDA_ERROR_OF_THE_STUB (700): because it is a stub"),
    ],
)
def test_drivers(stub: dict[str, Path], library: str, mode: str, message: str) -> None:
    assert f"CudaError: {message}" in run(mode, stub[library])


def test_no_driver_at_all() -> None:
    output = run("", None)
    if "Gpu(" in output:
        pytest.skip("there is a driver here")
    assert output.startswith("CudaError: no NVIDIA driver") or "no GPU" in output


# a product of 2 x 128 and 64 x 128 at made-up addresses, one with more tiles than counters, and the
# first with one thing wrong
PRODUCTS = """
from flexq import _flexq

def linear(codes=4096, scales=8192, m=2, n=64, k=128, x=3 << 16, x_type=0, bias=None, y=4 << 16,
           act_bits=16, space=5 << 16, size=1 << 20, kernel=None):
    weight, activations, workspace = (codes, scales, 0, n, k, 128), (x, x_type, m, k), (space, size)
    precision = act_bits, False
    _flexq.cuda_linear(0, 0, weight, activations, bias, (y, 0), *precision, workspace, kernel)

linear()
linear(m=8192, n=128256)
for wrong in WRONG:
    try:
        linear(**wrong)
    except ValueError as error:
        print(error)
    else:
        print("nothing was refused:", wrong)
"""


def test_what_kernels_cannot_take_is_refused(stub: dict[str, Path]) -> None:
    wrong = {
        "weights: address 0x1008 is not a multiple of 16 bytes": {"codes": 4104},
        "scales: no memory was given": {"scales": 0},
        "activations: address 0x30001 is not a multiple of 2 bytes": {"x": (3 << 16) + 1},
        "bias: address 0x60002 is not a multiple of 4 bytes": {"bias": ((6 << 16) + 2, 2)},
        "output: address 0x40008 is not a multiple of 16 bytes": {"y": (4 << 16) + 8},
        "workspace: address 0x50010 is not a multiple of 256 bytes": {"space": (5 << 16) + 16},
        "workspace: expected at least 262144 bytes, found 4096": {"size": 4096},
        "N: expected less than 2^31, found 2147483648": {"n": 1 << 31},
        "K: expected at least 1 on a GPU, found 0": {"k": 0},
        "type 3: expected 0, 1 or 2": {"x_type": 3},
        "bits of an activation: expected 16 (float16 or bfloat16), found 32": {"x_type": 2},
        "act_bits: expected 16, 8 or 6, found 4": {"act_bits": 4},
        "hopper cannot compute this product: it does not fit this shape, type or GPU": {
            "kernel": "hopper"
        },
    }
    output = run("works", stub["whole"], f"WRONG = {list(wrong.values())}\n{PRODUCTS}")
    assert output.splitlines() == list(wrong)
