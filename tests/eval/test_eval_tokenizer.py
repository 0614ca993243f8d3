import pytest
from flexq.eval.tokenizer import ByteLevelBpe, load_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def library(austen):
    return tokenizers.Tokenizer.from_file(str(austen / "tokenizer.json"))


def test_same_ids_as_the_library_on_the_held_out_text(austen, austen_text, library):
    text = austen_text.read_text()
    ids = load_tokenizer(austen).encode(text)
    assert ids == library.encode(text).ids
    assert load_tokenizer(austen).decode(ids) == text


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_round_trips(text):
    text = text.encode(errors="ignore").decode()
    tokenizer = test_any_text_round_trips.tokenizer
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.fixture(autouse=True)
def _tokenizer(austen):
    test_any_text_round_trips.tokenizer = load_tokenizer(austen)


def test_special_tokens_are_left_out(austen):
    tokenizer = load_tokenizer(austen)
    assert isinstance(tokenizer, ByteLevelBpe)
    assert tokenizer.decode([0, *tokenizer.encode("Emma"), 0]) == "Emma"


def test_other_tokenizers_go_through_the_library(tinystories):
    tokenizer = load_tokenizer(tinystories)
    assert tokenizer.decode(tokenizer.encode("Once upon a time")).strip() == "Once upon a time"
    assert 1 not in tokenizer.encode("Once")
