"""Terms become the tokens of the demo's tokenizer."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from alens.errors import RequestError
from alens.model import models
from alens.reading.terms import read_terms, to_tokens


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return models.load_tokenizer(models.find("demo"))[0]


def test_a_term_counts_with_and_without_a_space(tokenizer: Any) -> None:
    (term,) = to_tokens(["the"], tokenizer)
    assert {tokenizer.decode([i]) for i in term.ids} == {"the", " the"}


def test_one_token_stands_for_a_term_where_logits_are_read(tokenizer: Any) -> None:
    """With a space where that is a single token, else as written."""
    both, spaced, written = to_tokens(["the", " the", "ould"], tokenizer)
    assert tokenizer.decode([both.token]) == tokenizer.decode([spaced.token]) == " the"
    assert len(both.ids) == 2 and tokenizer.decode([written.token]) == "ould"
    (first,) = to_tokens(["ould"], tokenizer, first_token=True)  # " ould" begins with " o"
    assert len(first.ids) == 2 and first.token == written.token


def test_a_single_string_is_not_a_list_of_terms(tokenizer: Any) -> None:
    """Python would take its characters for terms."""
    with pytest.raises(RequestError, match=r"^terms is the string 'he': give a list of strings$"):
        to_tokens("he", tokenizer)


def test_a_term_of_several_tokens_is_refused_or_counts_by_its_first(tokenizer: Any) -> None:
    word = "electroencephalography"
    assert len(tokenizer.encode(word).ids) > 1
    with pytest.raises(RequestError, match=f"1 of 2 terms are not a single token .*'{word}'.*--first-token"):
        to_tokens(["the", word], tokenizer)
    term = to_tokens([word], tokenizer, first_token=True)[0]
    assert set(term.ids) == {tokenizer.encode(word).ids[0], tokenizer.encode(f" {word}").ids[0]}


@pytest.mark.parametrize(
    ("term", "single", "first"),
    [
        ("king", ["king", "▁king"], ["king", "▁king"]),
        (" king", ["▁king"], ["▁king"]),
        ("superman", None, ["super", "▁super"]),
        (" superman", None, ["▁super"]),
        ("日", None, ["<0xE6>"]),
    ],
)
def test_terms_of_sentencepiece_stand_within_a_text(
    sentencepiece: Tokenizer, term: str, single: list[str] | None, first: list[str]
) -> None:
    """Neither the space that is put before a text nor a bare one stands for a term."""
    (with_first,) = to_tokens([term], sentencepiece, first_token=True)
    assert [sentencepiece.id_to_token(token) for token in with_first.ids] == first
    if single is None:
        with pytest.raises(RequestError, match=r"1 of 1 terms are not a single token .*--first-token"):
            to_tokens([term], sentencepiece)
    else:
        assert [
            sentencepiece.id_to_token(token) for token in to_tokens([term], sentencepiece)[0].ids
        ] == single


def test_a_term_whose_first_token_is_a_bare_space_has_no_first_token(sentencepiece: Tokenizer) -> None:
    with pytest.raises(
        RequestError, match=r"1 of 1 terms are not a single token of this model \(' 日'\): leave them out$"
    ):
        to_tokens([" 日"], sentencepiece, first_token=True)


def test_files_of_terms(tmp_path: Path) -> None:
    file = tmp_path / "terms.txt"
    file.write_text("# people\nman\n\nwoman\nman\n")
    assert read_terms(file) == ["man", "woman"]
    file.write_bytes(b"\xef\xbb\xbfman\nwoman\n")
    assert read_terms(file) == ["man", "woman"]
    file.write_text("# nothing\n")
    with pytest.raises(RequestError, match="holds no term"):
        read_terms(file)
