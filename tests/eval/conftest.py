"""Models that the tests of `flexq.eval` share."""

from pathlib import Path

import flexq
import pytest
from flexq.eval.checkpoint import Tensors, to_float32
from flexq.eval.llama import HEAD, Llama
from flexq.eval.text import load_text
from flexq.eval.variant import Build, Variant

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def austen() -> Path:
    """The model in the project."""
    return ROOT / "examples/austen/model"


@pytest.fixture(scope="session")
def austen_text() -> Path:
    """Its held-out text."""
    return ROOT / "examples/austen/eval.txt"


@pytest.fixture(scope="session")
def tinystories() -> Path:
    """A model that is beside the project on some machines."""
    path = ROOT.parent / "shared/data/tinystories-656k"
    if not path.is_dir():
        pytest.skip("no tinystories-656k beside the project")
    return path


@pytest.fixture(scope="session")
def tensors(austen: Path) -> Tensors:
    """Tensors of the Austen model."""
    return flexq.load_file(austen)


@pytest.fixture(scope="session")
def plain(austen: Path, tensors: Tensors) -> Llama:
    """The Austen model in float."""
    return Build().model(austen, tensors, Variant("float"))


@pytest.fixture(scope="session")
def weights(plain: Llama, tensors: Tensors) -> dict:
    """Its matrices but the head, by module name."""
    return {name: to_float32(tensors[f"{name}.weight"]) for name in plain.linears if name != HEAD}


@pytest.fixture(scope="session")
def window(austen: Path, austen_text: Path) -> list:
    """One window of the held-out text."""
    return load_text(austen_text, austen, 511)[:1]
