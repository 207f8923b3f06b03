"""Stretches within a text: as GPT-2's tokenizers have them anywhere, and as SentencePiece's do behind other text."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

import alens
from alens import HeadReader, load_lenses
from alens.model import models as cache_models
from alens.model.within_text import WithinText


@pytest.fixture(scope="module")
def byte_level() -> Any:
    return cache_models.load_tokenizer(cache_models.find("demo"))[0]


def spelt(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    return [tokenizer.id_to_token(token) for token in ids]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("king", ["king"]),
        (" king", ["▁king"]),
        (" superman", ["▁super", "man"]),
        (" 日", ["▁", "<0xE6>", "<0x97>", "<0xA5>"]),
        ("\n", ["<0x0A>"]),
        (".", ["."]),
    ],
)
def test_a_stretch_has_the_tokens_that_it_has_behind_other_text(
    sentencepiece: Tokenizer, text: str, tokens: list[str]
) -> None:
    assert spelt(sentencepiece, WithinText(sentencepiece).ids(text)) == tokens
    behind = sentencepiece.encode("a man" + text, add_special_tokens=False).tokens
    assert behind[-len(tokens) :] == tokens


def test_single_tokens_keep_their_space(sentencepiece: Tokenizer) -> None:
    within = WithinText(sentencepiece)
    ids = sentencepiece.encode("the king.", add_special_tokens=False).ids
    assert [within.text([token]) for token in ids] == [" the", " king", "."]
    assert [sentencepiece.decode([token]) for token in ids] == ["the", "king", "."]
    assert within.text(ids) == " the king."


def test_all_single_tokens_of_sentencepiece(sentencepiece: Tokenizer) -> None:
    """Each token is what it spells, with a space for `▁`; a byte is its character, or the sign for a part of one."""
    within = WithinText(sentencepiece)
    for token, number in sentencepiece.get_vocab().items():
        byte = re.fullmatch(r"<0x(..)>", token)
        says = bytes([int(byte[1], 16)]).decode(errors="replace") if byte else token.replace("▁", " ")
        assert within.text([number]) == says


def test_byte_level_tokens_are_as_the_tokenizer_has_them(byte_level: Any) -> None:
    within = WithinText(byte_level)
    for token in range(byte_level.get_vocab_size()):
        assert within.text([token]) == byte_level.decode([token], skip_special_tokens=False)
    for text in ("king", " king", "\nking", "  x", "naïve 日本", "."):
        assert within.ids(text) == byte_level.encode(text, add_special_tokens=False).ids


def test_byte_level_with_a_space_before_every_text(byte_level: Any) -> None:
    spaced = Tokenizer.from_str(byte_level.to_str())
    spaced.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert spaced.encode("the").ids == spaced.encode(" the").ids
    within = WithinText(spaced)
    assert [within.text(within.ids(text)) for text in ("the", " the")] == ["the", " the"]


def test_a_decoder_that_joins_by_spaces_is_left_alone() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "king": 1}, unk_token="a"))
    assert WithinText(tokenizer).text([1]) == "king"


def test_a_reading_shows_the_space_of_tokens_and_the_prompt_as_it_is(
    demo_lenses: Path, monkeypatch: pytest.MonkeyPatch, sentencepiece: Tokenizer
) -> None:
    load = cache_models.load
    monkeypatch.setattr(
        cache_models, "load", lambda *a, **k: dataclasses.replace(load(*a, **k), tokenizer=sentencepiece)
    )
    reader = HeadReader(load_lenses(demo_lenses), device="cpu")
    reading = reader.read("the king", top=4096, rank="probability", terms=reader.terms([" king"]))
    assert reading.tokens == [" the", " king"]
    assert reading.before == {1: "the king"}
    for listed in (reading.model[1], reading.heads[0].lens, reading.heads[0].unembedding):
        assert {" king", "king", "▁".replace("▁", " ")} <= {score.token for score in listed}
    assert [term.ids for term in reading.heads[0].lens_terms] == [[sentencepiece.token_to_id("▁king")]]


def test_nothing_else_decodes_tokens() -> None:
    """So that no table or page shows them otherwise; an error names the token that the model does not have."""
    package = Path(alens.__file__).parent
    callers = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"tokenizer\.decode\(|id_to_token|convert_ids", path.read_text())
    }
    assert callers == {"model/within_text.py", "reading/lensed_model.py", "text/text_tokens.py"}
