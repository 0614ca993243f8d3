"""Models of well-known shapes with random weights, dense, packed or quantized by others."""

import torch
from flexq.torch import PackedWeight, Scheme, prepare
from flexq.torch.convert import empty_like
from flexq.torch.policy import Activations
from flexq.torch.select import choose
from int8 import Int8Linear
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

# vocabulary, hidden, intermediate, layers, heads, key-value heads, experts
SHAPES = {
    "llama-2-7b": (32000, 4096, 11008, 32, 32, 32, 0),
    "llama-2-13b": (32000, 5120, 13824, 40, 40, 40, 0),
    "llama-3.1-8b": (128256, 4096, 14336, 32, 32, 8, 0),
    "llama-30b": (32000, 6656, 17920, 60, 52, 52, 0),
    "mixtral-8x7b": (32000, 4096, 14336, 32, 32, 8, 8),
    "qwen2.5-0.5b": (151936, 896, 4864, 24, 14, 2, 0),
}
# of flexq, by the second half of a system's name
ACTIVATIONS = {
    "w6a16": Activations(16),
    "w6a8": Activations(8),
    "w6a8row": Activations(8, group="row"),
    "auto": Activations(),
}
OTHERS = ("torchao-w8a8", "torchao-w8a16", "bitsandbytes-w8a8", "cublas-w8a8")
PRESETS = ("full", "linear")
SYSTEMS = ("bf16", *(f"flexq-{name}" for name in ACTIVATIONS), *OTHERS)


def skeleton(shape: str, layers: int | None = None, attention: str = "sdpa"):
    """The dense model without memory, and its configuration."""
    vocabulary, hidden, intermediate, depth, heads, kv_heads, experts = SHAPES[shape]
    settings = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers or depth,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 8192,
        "dtype": torch.bfloat16,
        "attn_implementation": attention,
    }
    if experts:
        config = MixtralConfig(**settings, num_local_experts=experts, sliding_window=None)
        kind = MixtralForCausalLM
    else:
        config, kind = LlamaConfig(**settings), LlamaForCausalLM
    with torch.device("meta"):
        return kind(config).to(torch.bfloat16)


def pack_empty(model, activations: Activations, preset: str = "full") -> None:
    """Replaces what a preset packs by modules without memory."""
    for name in choose(model, preset).modules():
        packed = empty_like(name, model.get_submodule(name), Scheme(), activations)
        model.set_submodule(name, packed)


def fill(model):
    """Random values for every parameter."""
    for module in model.modules():
        if isinstance(module, PackedWeight):
            for name in module.names():
                codes, scale = module.packed(name)
                codes.random_(0, 256)
                scale.fill_(0.001)
        else:
            for parameter in module.parameters(recurse=False):
                parameter.data.normal_(0, 0.02)
    return model


def build(
    shape: str,
    system: str,
    device: str,
    layers: int | None = None,
    attention: str = "sdpa",
    preset: str = "full",
):
    """A model with random weights on `device`."""
    model = skeleton(shape, layers, attention)
    kind, _dash, precision = system.partition("-")
    if kind == "flexq":
        pack_empty(model, ACTIVATIONS[precision], preset)
    model = fill(model.to_empty(device=device))
    prepare(model)
    # the table of rotations is computed, not loaded
    with torch.device(device):
        model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    if kind == "torchao":
        from torchao import quantization as ao

        config = {
            "w8a8": ao.Int8DynamicActivationInt8WeightConfig,
            "w8a16": ao.Int8WeightOnlyConfig,
        }[precision]()
        ao.quantize_(model, config)
    elif kind == "bitsandbytes":
        quantize_bitsandbytes(model)
    elif kind == "cublas":
        for name in linear_names(model):
            model.set_submodule(name, Int8Linear(model.get_submodule(name)))
    if kind in ("torchao", "bitsandbytes", "cublas") and device == "cuda":
        # others set up their models meanwhile
        torch.cuda.empty_cache()
    return model.eval()


def quantize_bitsandbytes(model) -> None:
    """LLM.int8() without outliers in 16 bits, which random activations have none of."""
    from bitsandbytes import nn

    for name in linear_names(model):
        dense = model.get_submodule(name)
        sizes = dense.in_features, dense.out_features
        linear = nn.Linear8bitLt(*sizes, False, has_fp16_weights=False, device="meta")
        weight = nn.Int8Params(dense.weight.cpu(), False, has_fp16_weights=False)
        linear.weight = weight.to(dense.weight.device)
        model.set_submodule(name, linear)


def linear_names(model) -> list[str]:
    """The linear layers that W8A8 quantizes: all but the head."""
    linear = {name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    return sorted(linear - {"lm_head"})
