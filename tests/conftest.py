"""Fixtures that several test files share."""

from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


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
