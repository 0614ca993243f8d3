"""Perplexity with products on the GPU beside the CPU's: do both say the same?

    python benches/accuracy/gpu.py examples/austen/model examples/austen/eval.txt

Packs the model, then scores the text with every act_bits setting in up to three places: `cpu`
and `cuda` are flexq's own forward pass with products there, `transformers` is the model that
transformers loads onto the GPU, all of it in float16. Ends with 1 if a perplexity on the GPU
is further than `--bound` from the CPU's.

Give it the whole text. Rounding activations amplifies the last bit of a float sum: where one
value falls on the other side of a rounding step, later layers differ by whole steps. Such
differences have no direction and average out over tokens.

The places may run on two machines: `--places cpu --json cpu.json` on one, then
`--places cuda,transformers --beside cpu.json` on the other.
"""

import argparse
import json
import tempfile
from pathlib import Path

import flexq
import numpy as np
from flexq.eval.report import print_table
from flexq.eval.score import Model, Score, score
from flexq.eval.text import load_text
from flexq.eval.variant import Build, Variant
from flexq.policy import PAPER, Policy

POLICIES = {"w6a16": Policy(16), "w6a8": Policy(8), "w6ax": PAPER, "w6a6": Policy(6)}
PLACES = ("cpu", "cuda", "transformers")
Found = dict[str, dict[str, float]]


class OnTorch:
    """A packed model with a policy, loaded by transformers onto the GPU, as scoring sees it."""

    def __init__(self, directory: Path, policy: Policy) -> None:
        import flexq.transformers  # noqa: F401
        import torch
        from transformers import AutoModelForCausalLM

        path = directory / "config.json"
        config = json.loads(path.read_text())
        config["quantization_config"] |= policy.to_config()
        path.write_text(json.dumps(config))
        self.torch = torch
        self.model = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float16, device_map="cuda"
        ).eval()

    def logits(self, ids: np.ndarray) -> np.ndarray:
        with self.torch.no_grad():
            return self.model(self.torch.from_numpy(ids).cuda()).logits.float().cpu().numpy()


def measure(model: Path, text: Path, preset: str, limit: int | None, places: list[str]) -> Found:
    """Nats a token by variant and place."""
    sequences = load_text(text, model, limit)
    found: Found = {}
    with tempfile.TemporaryDirectory() as temporary:
        packed = Path(temporary) / "packed"
        flexq.pack(model, packed, preset=preset)
        tensors = flexq.load_file(packed)

        def scored(name: str, policy: Policy, place: str) -> Score:
            if place == "transformers":
                made: Model = OnTorch(packed, policy)
            else:
                made = Build(preset, device=place).model(packed, tensors, Variant(name, 6, policy))
            return score({place: made}, place, sequences)[place]

        for name, policy in POLICIES.items():
            scores = {place: scored(name, policy, place) for place in places}
            found[name] = {place: one.nats for place, one in scores.items()}
            tokens = next(iter(scores.values())).tokens
    print(f"{model} on {text.name}, {tokens:,} tokens, preset {preset}")
    return found


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="directory of the unquantized model")
    parser.add_argument("text", type=Path, help="plain text or .jsonl")
    parser.add_argument("--preset", choices=["linear", "full"], default="linear")
    parser.add_argument("--places", default="cpu,cuda", help="of cpu, cuda, transformers")
    parser.add_argument("--limit", type=int, help="tokens; the whole text by default")
    parser.add_argument("--bound", type=float, default=1e-3, help="largest relative difference")
    parser.add_argument("--beside", type=Path, help="figures of an earlier run, its --json")
    parser.add_argument("--json", type=Path, help="keep the figures: nats a token")
    arguments = parser.parse_args()
    places = arguments.places.split(",")
    if unknown := set(places) - set(PLACES):
        parser.error(f"--places: expected some of {', '.join(PLACES)}, found {sorted(unknown)}")
    found = measure(arguments.model, arguments.text, arguments.preset, arguments.limit, places)
    if arguments.beside:
        earlier: Found = json.loads(arguments.beside.read_text())
        found = {name: earlier[name] | figures for name, figures in found.items()}
    rows, worst = [], 0.0
    for name, figures in found.items():
        base = figures.get("cpu", next(iter(figures.values())))
        for place, nats in figures.items():
            difference = np.expm1(nats - base)
            worst = max(worst, abs(difference))
            rows.append([f"{name} {place}", f"{np.exp(nats):.5f}", f"{difference:+.4%}"])
    print_table("perplexity", ["variant and place", "perplexity", "against the CPU"], rows)
    print(f"largest difference {worst:.4%}, allowed {arguments.bound:.2%}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(worst > arguments.bound)


if __name__ == "__main__":
    raise SystemExit(main())
