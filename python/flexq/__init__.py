"""Language models in 6 bits: quantize, pack, store and multiply.

Example::

    q = flexq.quantize(w)            # w [N, K] in float32, float16 or bfloat16
    y = flexq.matmul(x, q)           # x [M, K] times the transpose of w: [M, N]
    flexq.save_file({"w": q}, "m.safetensors")
    q = flexq.load_file("m.safetensors")["w"]
    flexq.pack("model", "model-6bit")
"""

from flexq import cuda
from flexq._flexq import (
    CudaError,
    CudaTensor,
    FormatError,
    NonFiniteError,
    QTensor,
    __version__,
    embedding,
    matmul,
    quantize,
)
from flexq.checkpoint import export, import_, inspect, pack, plan, unpack, verify
from flexq.io import TensorFile, load_file, save_file

__all__ = [
    "CudaError",
    "CudaTensor",
    "FormatError",
    "NonFiniteError",
    "QTensor",
    "TensorFile",
    "__version__",
    "cuda",
    "embedding",
    "export",
    "import_",
    "inspect",
    "load_file",
    "matmul",
    "pack",
    "plan",
    "quantize",
    "save_file",
    "unpack",
    "verify",
]
