"""The PTX that is committed belongs to the kernels that are committed."""

import subprocess
import sys
from pathlib import Path

BUILD = Path(__file__).resolve().parents[1] / "kernels" / "build.py"


def test_ptx_is_current():
    run = subprocess.run([sys.executable, BUILD, "--digest"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
