"""The joined tokens of pieces are those of the whole text."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from alens.text import joining
from alens.text.corpus import Piece
from alens.text.joining import Joiner

from .tokenizer_families import FAMILIES, ODD, odd_text

A_PIECE = 512
"""Characters of a piece: two MARGINs, so that there are many joints."""


@pytest.fixture(scope="module", params=FAMILIES)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return FAMILIES[request.param]()


def pieces(text: str, length: int = A_PIECE) -> list[Piece]:
    return [Piece(text[place : place + length], place == 0) for place in range(0, len(text), length)]


def joined(tokenizer: Tokenizer, batches: Iterator[list[Piece]]) -> list[list[int]]:
    """The tokens of each document."""
    documents: list[list[int]] = []
    for starts_document, ids in Joiner(tokenizer).tokens(batches):
        if starts_document:
            documents.append([])
        documents[-1] += ids
    return documents


def whole(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize("length", [A_PIECE, 1000, 16_384])
def test_joined_tokens_are_those_of_the_whole_text(tokenizer: Tokenizer, length: int) -> None:
    text = odd_text(seed=length, length=60_000)
    assert joined(tokenizer, iter([pieces(text, length)])) == [whole(tokenizer, text)]


def test_documents_are_tokenised_by_themselves_in_batches_of_any_size(tokenizer: Tokenizer) -> None:
    """Documents of many pieces, of one piece, and of the start of one."""
    lengths = [3 * A_PIECE, 1, 5, 2 * A_PIECE + 1, A_PIECE, 7 * A_PIECE]
    texts = [odd_text(seed, length)[:length] for seed, length in enumerate(lengths)]
    expected = [whole(tokenizer, text) for text in texts]
    every = [piece for text in texts for piece in pieces(text)]
    for size in (1, 2, 5, len(every)):
        batches = iter([every[start : start + size] for start in range(0, len(every), size)])
        assert joined(tokenizer, batches) == expected
    assert joined(tokenizer, iter([])) == []


@settings(deadline=None, max_examples=25)
@given(parts=st.lists(st.sampled_from([*ODD, "word", " ", "It was", "a"]) | st.text(max_size=9), min_size=40))
def test_any_text_is_joined(parts: list[str]) -> None:
    text = "".join(parts) * 3
    for family in ("gpt2", "llama2"):
        tokenizer = FAMILIES[family]()
        assert "".join(piece.text for piece in pieces(text)) == text
        assert joined(tokenizer, iter([pieces(text)])) == [whole(tokenizer, text)] * bool(text)


@pytest.mark.parametrize("text", ["=" * 30_000, "x" + " " * 9_000 + "y" * 9_000, "12345678" * 2_000])
def test_where_windows_do_not_agree_pieces_become_one(
    tokenizer: Tokenizer, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert joined(tokenizer, iter([pieces(text)])) == [whole(tokenizer, text)]
    assert caplog.messages == []


def test_a_text_that_cannot_be_parted_is_cut_and_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Digits in threes from the right: each token depends on where the number ends. Nothing is lost."""
    monkeypatch.setattr(joining, "MOST_CHARACTERS", 2 * A_PIECE)
    tokenizer = Tokenizer(models.BPE())
    in_threes = pre_tokenizers.Split(Regex(r"\d{1,3}(?=(?:\d{3})*(?!\d))"), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([in_threes, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    numbers = (f"{number:03}" for number in range(1000))
    tokenizer.train_from_iterator(numbers, trainers.BpeTrainer(vocab_size=1200))
    text = "12345678" * 800
    (ids,) = joined(tokenizer, iter([pieces(text)]))
    assert tokenizer.decode(ids) == text
    assert ids != whole(tokenizer, text)
    (message,) = caplog.messages
    assert message.startswith("tokens of a document depend on more than 1,024 characters around them")


def test_a_passage_has_the_tokens_that_it_has_in_its_text(tokenizer: Tokenizer) -> None:
    before, text = "It was the best of times,", " it was the worst of times."
    joiner = Joiner(tokenizer)
    expected = whole(tokenizer, before + text)[len(whole(tokenizer, before)) :]
    assert joiner.encode_after(before, text) == expected
    if joiner.begins_alike:
        assert joiner.encode([text]) == [expected]


def test_only_a_tokenizer_that_puts_a_space_before_a_text_tells_its_beginning() -> None:
    assert [name for name, make in FAMILIES.items() if not Joiner(make()).begins_alike] == ["llama2"]
