"""Checks what flexq promises of accuracy, on a whole text. Ends with 1 if a bound is broken.

    python benches/accuracy/promises.py examples/austen/model examples/austen/eval.txt

6-bit weights with exact or 8-bit activations stay within 0.5 % of the perplexity in float; the
policy that analysis recommends leaves at most half of what 6-bit activations lose; a 4-bit
control loses at least ten times as much as 6-bit weights.
"""

import argparse
from pathlib import Path

from flexq.eval.analyze import analyze
from flexq.eval.evaluate import HEADERS, evaluate, rows
from flexq.eval.report import print_table
from flexq.eval.sensitivity import recommend


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--limit", type=int, help="tokens; the whole text by default")
    arguments = parser.parse_args()
    figures = analyze(arguments.model, source="text", text=arguments.text, limit=2000)
    scores = evaluate(
        arguments.model,
        text=arguments.text,
        policy=recommend(figures),
        limit=arguments.limit,
    )
    print_table(f"{arguments.model} on {arguments.text.name}", HEADERS, rows(scores))
    base = scores["float"].perplexity
    loss = {name: one.perplexity / base - 1 for name, one in scores.items()}
    kept = {
        "w6a16 within 0.5 %": abs(loss["w6a16"]) < 0.005,
        "w6a8 within 0.5 %": abs(loss["w6a8"]) < 0.005,
        "w6ax at most half of w6a6": loss["w6ax"] <= 0.5 * loss["w6a6"],
        "w4a16 ten times w6a16": loss["w4a16"] >= 10 * loss["w6a16"],
    }
    for promise, holds in kept.items():
        print(f"{promise}: {'holds' if holds else 'BROKEN'}")
    return int(not all(kept.values()))


if __name__ == "__main__":
    raise SystemExit(main())
