"""Models made ready for the GPU they are on."""

from torch import nn

from flexq.torch import cuda
from flexq.torch.module import PackedWeight
from flexq.torch.siblings import join


def prepare(model: nn.Module, rows: int = 2048) -> nn.Module:
    """Readies the flexq modules of a model for the GPU they are on, and for graph capture.

    Weights go into device order, each kernel's workspace is made large enough for products
    of `rows` rows, and layers that share their input are joined (`flexq.torch.siblings`).
    Elsewhere it does nothing. Run the model once before capturing a graph:
    the driver compiles a kernel when it is first used.
    """
    cuda.follow_inductor()
    for module in model.modules():
        if isinstance(module, PackedWeight):
            module.prepare(rows)
    return join(model)
