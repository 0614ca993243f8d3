"""flexq for transformers: importing this package is what makes packed models load.

```python
import flexq.transformers
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("packed_dir")
```

Without the import, transformers fills the linear layers with random numbers and
only logs that it does not know the method. `from_pretrained` here is the same
call with the import built in.
"""

from typing import Any

from transformers import AutoModelForCausalLM
from transformers.quantizers import auto

from flexq.torch import Coverage, convert, coverage, prepare
from flexq.transformers.config import FlexQConfig
from flexq.transformers.inplace import adopt
from flexq.transformers.quantizer import FlexQQuantizer

__all__ = ["Coverage", "FlexQConfig", "FlexQQuantizer", "coverage", "from_pretrained", "prepare"]

if FlexQConfig.quant_method not in auto.AUTO_QUANTIZATION_CONFIG_MAPPING:
    auto.register_quantization_config(FlexQConfig.quant_method)(FlexQConfig)
    auto.register_quantizer(FlexQConfig.quant_method)(FlexQQuantizer)
    convert.observers.append(adopt)


def from_pretrained(path: str, *args: Any, **kwargs: Any) -> Any:
    """A causal language model from a packed directory.

    Takes what `transformers.AutoModelForCausalLM.from_pretrained` takes.

    Raises:
        ValueError: the directory is not a flexq model, or not a sound one.
    """
    model = AutoModelForCausalLM.from_pretrained(path, *args, **kwargs)
    if coverage(model).packed_bytes == 0 and not _dense_was_asked(kwargs):
        raise ValueError(f"{path}: not a packed model; pack it with flexq-pack")
    return model


def _dense_was_asked(kwargs: dict[str, Any]) -> bool:
    settings = getattr(kwargs.get("config"), "quantization_config", None) or {}
    return bool(dict(settings).get("dequantize"))
