"""Products with ggml's Q6_K through its own shared libraries, for comparison.

The libraries come from any llama.cpp source tree, for instance the one in the source
distribution of llama-cpp-python: `cmake -S vendor/llama.cpp/ggml -B build && cmake --build build`.
"""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32, Q6_K = 0, 14
BLOCK, BLOCK_BYTES = 256, 210


class _InitParams(ctypes.Structure):
    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


class _Plan(ctypes.Structure):
    # what follows the work buffer differs between versions: the rest is room for it
    _fields_ = (
        ("work_size", ctypes.c_size_t),
        ("work_data", ctypes.c_void_p),
        ("rest", ctypes.c_byte * 64),
    )


class Ggml:
    """The functions that a product needs.

    Args:
        directory: holds `libggml-base.so` and `libggml-cpu.so`.
    """

    def __init__(self, directory: Path) -> None:
        base = ctypes.CDLL(str(directory / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
        cpu = ctypes.CDLL(str(directory / "libggml-cpu.so"), mode=ctypes.RTLD_GLOBAL)
        pointer, long = ctypes.c_void_p, ctypes.c_int64

        def declare(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            return function

        self._init = declare(base, "ggml_init", pointer, _InitParams)
        self.free = declare(base, "ggml_free", None, pointer)
        self.tensor = declare(
            base, "ggml_new_tensor_2d", pointer, pointer, ctypes.c_int, long, long
        )
        self.data = declare(base, "ggml_get_data", pointer, pointer)
        self.mul_mat = declare(base, "ggml_mul_mat", pointer, pointer, pointer, pointer)
        self.graph = declare(
            base, "ggml_new_graph_custom", pointer, pointer, ctypes.c_size_t, ctypes.c_bool
        )
        self.expand = declare(base, "ggml_build_forward_expand", None, pointer, pointer)
        self.quantize = declare(
            base,
            "ggml_quantize_chunk",
            ctypes.c_size_t,
            *(ctypes.c_int, pointer, pointer, long, long, long, pointer),
        )
        self.plan = declare(cpu, "ggml_graph_plan", _Plan, pointer, ctypes.c_int, pointer)
        self.compute = declare(
            cpu, "ggml_graph_compute", ctypes.c_int, pointer, ctypes.POINTER(_Plan)
        )
        declare(cpu, "ggml_cpu_init", None)()

    def context(self, size: int) -> Any:
        """Memory for tensors and graphs."""
        return self._init(_InitParams(size, None, False))


class Weights:
    """Copies of one weight `[N, K]` as Q6_K."""

    def __init__(self, ggml: Ggml, w: NDArray[np.float32], copies: int) -> None:
        self.ggml, (self.n, self.k) = ggml, w.shape
        self.nbytes = self.n * self.k // BLOCK * BLOCK_BYTES
        context = ggml.context(copies * (self.nbytes + 1024))
        self.tensors = [ggml.tensor(context, Q6_K, self.k, self.n) for _ in range(copies)]
        first = ggml.data(self.tensors[0])
        ggml.quantize(Q6_K, w.ctypes.data, first, 0, self.n, self.k, None)
        for tensor in self.tensors[1:]:
            ctypes.memmove(ggml.data(tensor), first, self.nbytes)


class Product:
    """`x w^T` with one copy of the weight after the other, `x [M, K]`."""

    def __init__(self, weights: Weights, x: NDArray[np.float32], threads: int) -> None:
        self.ggml, self.shape = weights.ggml, (len(x), weights.n)
        ggml, copies = self.ggml, len(weights.tensors)
        self.context = ggml.context(x.nbytes + copies * (4 * len(x) * weights.n + (1 << 16)))
        inputs = ggml.tensor(self.context, F32, weights.k, len(x))
        ctypes.memmove(ggml.data(inputs), x.ctypes.data, x.nbytes)
        self.runs = []
        for w in weights.tensors:
            y = ggml.mul_mat(self.context, w, inputs)
            graph = ggml.graph(self.context, 8, False)
            ggml.expand(graph, y)
            self.runs.append((graph, ggml.plan(graph, threads, None), y))
        self.work = np.empty(max(plan.work_size for _, plan, _ in self.runs) + 64, np.uint8)
        for _, plan, _ in self.runs:
            plan.work_data = self.work.ctypes.data

    def run(self, copy: int) -> None:
        """Multiplies with a copy of the weight."""
        graph, plan, _ = self.runs[copy % len(self.runs)]
        if self.ggml.compute(graph, ctypes.byref(plan)) != 0:
            raise RuntimeError("ggml could not compute the product")

    def result(self, copy: int) -> NDArray[np.float32]:
        """The last product with that copy, `[M, N]`."""
        address = self.ggml.data(self.runs[copy % len(self.runs)][2])
        size = self.shape[0] * self.shape[1]
        values = (ctypes.c_float * size).from_address(address)
        return np.frombuffer(values, np.float32).reshape(self.shape).copy()

    def close(self) -> None:
        """Gives the memory back."""
        self.ggml.free(self.context)
