"""Fixtures of the torch tests; without torch they are skipped."""

import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(6)
