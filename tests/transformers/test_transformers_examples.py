"""The scripts in examples/ run as their users run them."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the torch extra is not installed")
pytest.importorskip("transformers", reason="the transformers extra is not installed")

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = EXAMPLES / "austen" / "model"


def run(script, *arguments, lines=""):
    command = [sys.executable, "-W", "ignore", str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_load_writes_on(tmp_path):
    from flexq._flexq import run_cli

    packed = tmp_path / "packed"
    assert run_cli(["flexq-pack", "pack", str(MODEL), str(packed)]) == 0
    text = run("load.py", packed, "It is a truth universally acknowledged")
    assert text.startswith("It is a truth universally acknowledged")
    assert len(text.split()) > 15


def test_chat_quantizes_a_dense_model_and_answers_every_line():
    text = run("chat.py", MODEL, "--max-new-tokens", 20, lines="Mr. Darcy\nElizabeth\n")
    assert "packed at 6.125 bits" in text
    answers = text.split("> ")[1:]
    assert len(answers) == 3  # the last prompt meets the end of the input
    assert all(len(answer.split()) > 5 for answer in answers[:2])
