"""What outlier channels do to quantized activations, and whether analysis finds them.

    python benches/accuracy/outliers.py examples/austen/model examples/austen/eval.txt

Large models grow channels with activations tens of times larger than the others; small ones do
not. Here one channel in every 128 of three projections grows by a factor, with producers and
consumers scaled so that the function stays the same in float. The model is then scored with
6-bit weights and several activations, and analysed with the largest factor but one.
"""

import argparse
import json
import sys
from pathlib import Path

import flexq
from flexq.eval.checkpoint import to_float32
from flexq.eval.llama import HEAD
from flexq.eval.report import print_table
from flexq.eval.score import score
from flexq.eval.sensitivity import Subject, measure, recommend
from flexq.eval.text import batches, load_text
from flexq.eval.variant import Build, Variant, packed_linear
from flexq.policy import Policy

sys.path.append(str(Path(__file__).parents[2] / "tests/eval"))
from planted import plant

WHERE = (
    "model.layers.0.mlp.gate_proj",
    "model.layers.1.self_attn.o_proj",
    "model.layers.2.mlp.down_proj",
)
FACTORS = (1, 2, 4, 8, 16, 32, 64)
SHOWN = 8
Losses = dict[str, list[float]]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--limit", type=int, default=2000, help="tokens (%(default)s)")
    parser.add_argument("--chart", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tensors = flexq.load_file(arguments.model)
    plain = Build().model(arguments.model, tensors, Variant("float"))
    weights = {n: to_float32(tensors[f"{n}.weight"]) for n in plain.linears if n != HEAD}
    sequences = load_text(arguments.text, arguments.model, arguments.limit)

    def planted(factor: int) -> Subject:
        model, changed = plant(plain, weights, dict.fromkeys(WHERE, float(factor)))
        packed = {name: flexq.quantize(w) for name, w in changed.items()}
        return Subject(model, changed, packed, lambda q, bits: packed_linear(q, bits, 128, "cpu"))

    found = measure(planted(FACTORS[-2]), batches(sequences[:1]))
    policy = recommend(found)
    ranked = sorted(found, key=lambda one: one.cost, reverse=True)
    rows = [
        [
            one.name,
            f"{one.act_max:.0f}",
            f"{one.error[8]:.2%}",
            f"{one.error[6]:.2%}",
            f"{one.cost:.2g}",
            str(policy.bits(one.name)),
        ]
        for one in ranked[:SHOWN]
    ]
    headers = ["layer", "max/RMS", "A8", "A6", "cost, KL", "bits"]
    print_table(f"most sensitive layers, factor {FACTORS[-2]}", headers, rows)

    policies = {"w6a16": Policy(16), "w6a8": Policy(8), "w6ax": policy, "w6a6": Policy(6)}
    losses: Losses = {name: [] for name in policies}
    for factor in FACTORS:
        subject = planted(factor)
        models = {"float": subject.model}
        for name, bits in policies.items():
            linears = {n: subject.product(q, bits.bits(n)) for n, q in subject.packed.items()}
            models[name] = subject.model.with_linears(linears)
        scores = score(models, "float", sequences)
        base = scores["float"].perplexity
        for name in policies:
            losses[name].append(100 * (scores[name].perplexity / base - 1))
    table = [[str(f), *(f"{losses[n][i]:+.2f}%" for n in losses)] for i, f in enumerate(FACTORS)]
    print_table("change of perplexity by factor", ["factor", *losses], table)
    if arguments.chart:
        draw(arguments.chart, losses)
    if arguments.json:
        kept = {"factors": FACTORS, "losses": losses, "ranked": rows, "policy": policy.to_config()}
        arguments.json.write_text(json.dumps(kept, indent=1) + "\n")


def draw(path: Path, losses: Losses) -> None:
    """Loss against factor."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.add_subplot()
    for name, values in losses.items():
        axis.plot(FACTORS, values, marker="o", label=name)
    axis.set_xscale("log", base=2)
    axis.set_xticks(FACTORS, [str(factor) for factor in FACTORS])
    axis.set_yscale("symlog", linthresh=1)
    axis.set_xlabel("planted channels larger by")
    axis.set_ylabel("change of perplexity, %")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
