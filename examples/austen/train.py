"""Train the Austen model: a 3.7-million-weight Llama, minutes on one GPU.

    pip install torch transformers safetensors numpy
    python train.py build model --seed 1

reads ``train.bin`` and ``eval.bin`` (see prepare.py), writes ``config.json``,
``generation_config.json`` and ``model.safetensors`` (bfloat16). The last 20,000
training tokens choose the checkpoint; the held-out text is scored once, at the end.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

CONTEXT = 512
VALIDATION = 20_000
END = 0  # <|endoftext|>, also the first token of every window


def make_model(dropout: float) -> LlamaForCausalLM:
    """Rows of 256 and 768 weights: two and six groups of 128."""
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        bos_token_id=END,
        eos_token_id=END,
    )
    model = LlamaForCausalLM(config)

    # Llama has no residual dropout; a model that reads its corpus fifty times needs it.
    def drop(module: torch.nn.Module, _: object, output: torch.Tensor) -> torch.Tensor:
        return functional.dropout(output, dropout, module.training)

    for name, module in model.named_modules():
        if name.endswith(("embed_tokens", "o_proj", "down_proj")):
            module.register_forward_hook(drop)
    return model


def windows(tokens: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """[len(starts), CONTEXT] ids, each window led by the end-of-text token."""
    rows = tokens[starts[:, None] + torch.arange(CONTEXT - 1, device=tokens.device)]
    return functional.pad(rows, (1, 0), value=END)


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Mean nats a predicted token."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    return functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


@torch.no_grad()
def score(model: LlamaForCausalLM, tokens: torch.Tensor) -> float:
    """Mean loss over whole windows of ``tokens``."""
    model.eval()
    starts = torch.arange(0, len(tokens) - CONTEXT, CONTEXT - 1, device=tokens.device)
    losses = [loss_of(model, windows(tokens, part)).item() * len(part) for part in starts.split(16)]
    model.train()
    return sum(losses) / len(starts)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 100 steps, then a cosine down to 2 % of the peak."""
    if step < 100:
        return peak * (step + 1) / 100
    return peak * (0.02 + 0.49 * (1 + math.cos(math.pi * (step - 100) / max(steps - 100, 1))))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="folder with train.bin and eval.bin")
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dropout", type=float, default=0.25)
    parser.add_argument("--peak", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokens, held_out = (
        torch.from_numpy(np.fromfile(arguments.work / name, "<u2").astype(np.int64)).to(device)
        for name in ("train.bin", "eval.bin")
    )
    tokens, validation = tokens[:-VALIDATION], tokens[-VALIDATION:]
    model = make_model(arguments.dropout).to(device).train()
    matrices = [p for p in model.parameters() if p.dim() == 2]
    norms = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.2}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=device == "cuda")

    best, weights, started = math.inf, None, time.monotonic()
    for step in range(arguments.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, arguments.steps, arguments.peak)
        starts = torch.randint(len(tokens) - CONTEXT, (arguments.batch,), device=device)
        with torch.autocast(device, torch.bfloat16):
            loss = loss_of(model, windows(tokens, starts))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 99 or step == arguments.steps - 1:
            current = score(model, validation)
            print(
                f"{step + 1:5d}  train {loss.item():.4f}  validation {current:.4f}"
                f"  {time.monotonic() - started:.0f} s",
                flush=True,
            )
            if current < best:
                best, weights = current, {k: v.clone() for k, v in model.state_dict().items()}

    model.load_state_dict(weights)
    model.to(torch.bfloat16).save_pretrained(arguments.output)
    model.float()
    print(f"held-out text, bfloat16 weights: {score(model, held_out):.4f} nats a token")


if __name__ == "__main__":
    main()
