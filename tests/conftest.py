"""Fixtures that several test files share."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
Cli = Callable[..., dict[str, Any]]


@pytest.fixture
def rng() -> np.random.Generator:
    """Numbers that are the same in every run."""
    return np.random.default_rng(6)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real models that lie beside the repository, where they do."""
    data = ROOT.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return data


@pytest.fixture(scope="session")
def flexq_pack_path() -> str:
    """The command under test: that of this environment, or the one `FLEXQ_PACK` names."""
    return os.environ.get("FLEXQ_PACK", str(Path(sys.executable).parent / "flexq-pack"))


@pytest.fixture(scope="session")
def flexq_pack(flexq_pack_path: str) -> Cli:
    """Runs `flexq-pack --json` and gives the object it prints, after checking its exit code."""

    def run(*args: object, code: int = 0) -> dict[str, Any]:
        command = [flexq_pack_path, "--json", *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        result: dict[str, Any] = json.loads(done.stdout or done.stderr)
        return result

    return run
