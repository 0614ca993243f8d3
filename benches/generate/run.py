"""Prefill and decode of Llama-shaped models with random weights, bf16 against flexq.

    python benches/generate/run.py --shapes llama-3.1-8b --batch 1 8 32 --out record.csv

Decode is one step with a static cache, recorded as a CUDA graph and replayed; prefill runs
as transformers does. The packed model holds random codes: speed and memory do not depend on
their values. A case whose step cannot be recorded is timed without a graph, and says so.
"""

import argparse
import csv
import gc
import statistics
import time
from pathlib import Path

import torch
from flexq.torch import PackedWeight, Scheme, prepare
from flexq.torch.convert import empty_like
from flexq.torch.select import choose
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

SHAPES = {
    "llama-2-7b": (32000, 4096, 11008, 32, 32, 32),
    "llama-2-13b": (32000, 5120, 13824, 40, 40, 40),
    "llama-3.1-8b": (128256, 4096, 14336, 32, 32, 8),
    "llama-30b": (32000, 6656, 17920, 60, 52, 52),
    "qwen2.5-0.5b": (151936, 896, 4864, 24, 14, 2),
}
SYSTEMS = {"bf16": None, "flexq-w6a16": 16, "flexq-w6a8": 8, "flexq-auto": "auto"}


def build(shape: str, act_bits: int | str | None, device: str) -> LlamaForCausalLM:
    """A model with random weights, dense or packed."""
    vocabulary, hidden, intermediate, layers, heads, kv_heads = SHAPES[shape]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=8192,
        dtype=torch.bfloat16,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    if act_bits is not None:
        for name in choose(model, "full").modules():
            packed = empty_like(name, model.get_submodule(name), Scheme(), act_bits, {})
            model.set_submodule(name, packed)
    model = model.to_empty(device=device)
    for module in model.modules():
        if isinstance(module, PackedWeight):
            for name in module.names():
                codes, scale = module.packed(name)
                codes.random_(0, 256)
                scale.fill_(0.001)
            prepare(module)
        else:
            for parameter in module.parameters(recurse=False):
                parameter.data.normal_(0, 0.02)
    # the table of rotations is computed, not loaded
    with torch.device(device):
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval()


def synchronize(device: str) -> None:
    """Waits for the GPU, where there is one."""
    if device == "cuda":
        torch.cuda.synchronize()


def median(call, device: str, repeats: int) -> float:
    """Seconds of a call, the median of several."""
    times = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@torch.no_grad()
def measure(model: LlamaForCausalLM, batch: int, prompt: int, device: str, repeats: int) -> dict:
    """Seconds of a prefill and of a decode step."""
    tokens = torch.randint(0, 1000, (batch, prompt), device=device)
    prefill = lambda: model(tokens, use_cache=False, logits_to_keep=1)  # noqa: E731
    prefill()
    result = {"prefill_s": median(prefill, device, max(repeats // 4, 2))}

    cache = StaticCache(config=model.config, max_cache_len=prompt + 128)
    model(tokens, past_key_values=cache, logits_to_keep=1)
    token = tokens[:, :1].clone()
    position = torch.full((1, 1), prompt, device=device)

    def step() -> torch.Tensor:
        return model(token, past_key_values=cache, position_ids=position).logits

    result["graph"] = "no"
    run = step
    step()
    if device == "cuda":
        try:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                step()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                step()
            result["graph"], run = "yes", graph.replay
        except RuntimeError as error:
            torch.cuda.synchronize()
            print("no graph:", str(error).splitlines()[0])
    run()
    result["decode_s"] = median(run, device, repeats)
    return result


def main() -> None:
    """Measures every combination asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=["llama-3.1-8b"], choices=SHAPES)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--prompt", type=int, default=2048, help="tokens; 128 for batches above 1")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = []
    for shape in arguments.shapes:
        for system in arguments.systems:
            gc.collect()
            if arguments.device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            model = build(shape, SYSTEMS[system], arguments.device)
            for batch in arguments.batch:
                prompt = arguments.prompt if batch == 1 else 128
                row = {"shape": shape, "system": system, "batch": batch, "prompt": prompt}
                row |= measure(model, batch, prompt, arguments.device, arguments.repeats)
                row["prefill_tok_s"] = round(batch * prompt / row["prefill_s"], 1)
                row["decode_tok_s"] = round(batch / row["decode_s"], 2)
                if arguments.device == "cuda":
                    row["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
                rows.append(row)
                print(row, flush=True)
            del model
    if arguments.out:
        with arguments.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
