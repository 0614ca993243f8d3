"""The examples in README and docs run, as a reader in a fresh clone would run them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*/README.md")]
)
BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: Path) -> Iterator[tuple[str, str, int]]:
    """Language, code and line of every `python` and `sh` block; `sh no-run` is left out."""
    text = document.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        if match["info"] in ("python", "sh"):
            yield match["info"], match["code"], text.count("\n", 0, match.start()) + 1


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_run(document: Path, tmp_path: Path) -> None:
    # what a reader has in a fresh clone; outputs go to the temporary folder
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    python = ""
    for language, code, line in blocks(document):
        if language == "sh":
            command = ["bash", "-euo", "pipefail", "-c", code]
        else:
            # later blocks go on where earlier ones stopped
            python += f"\n# line {line}\n{code}"
            command = [sys.executable, "-W", "error", "-c", python]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{document.name}, line {line}:\n{done.stdout}{done.stderr}"
