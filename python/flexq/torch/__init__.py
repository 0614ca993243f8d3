"""flexq for torch: operators, modules, and models in place.

```python
import torch
from flexq.torch import FlexQLinear, quantize_model_

coverage = quantize_model_(model)  # every linear layer but lm_head, on the device it is on
print(coverage)
```
"""

from flexq.torch import ops as ops
from flexq.torch.convert import dequantize_model_, quantize_model_
from flexq.torch.embedding import FlexQEmbedding
from flexq.torch.experts import FlexQExperts
from flexq.torch.layout import Scheme
from flexq.torch.linear import FlexQLinear
from flexq.torch.module import PackedWeight
from flexq.torch.prepare import prepare
from flexq.torch.report import Coverage, coverage

__all__ = [
    "Coverage",
    "FlexQEmbedding",
    "FlexQExperts",
    "FlexQLinear",
    "PackedWeight",
    "Scheme",
    "coverage",
    "dequantize_model_",
    "prepare",
    "quantize_model_",
]
