"""The bytes of the tokens of a text add up to its length."""

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from alens.errors import RequestError
from alens.model.models import find, load_tokenizer
from alens.model.token_bytes import token_bytes

TEXTS = [
    "He took her hand and went.",
    "\n\n  two   spaces, a tab\t, “quotes” — and a dash",
    "Überall naïve 日本 ☃ \U0001f600",
    "1234567890 \r\n x",
]


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_of_the_demos_tokens_add_up_to_the_text(text: str) -> None:
    tokenizer, _ = load_tokenizer(find("demo"))
    bytes_V = token_bytes(tokenizer, 4096)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert bytes_V.shape == (4096,) and bytes_V[ids].sum() == len(text.encode())


def test_special_tokens_and_ids_without_a_token_stand_for_no_text() -> None:
    tokenizer, end_of_text = load_tokenizer(find("demo"))
    tokenizer.add_tokens([AddedToken("<<é>>", special=False)])
    bytes_V = token_bytes(tokenizer, 5000)
    assert bytes_V[end_of_text] == 0 and bytes_V[4096] == len("<<é>>".encode())
    assert (bytes_V[4097:] == 0).all() and (bytes_V[1:4096] > 0).all()


SENTENCEPIECE = {
    "<unk>": 0,
    "<s>": 1,
    "<0x0A>": 2,
    "<0xE2>": 3,
    "▁": 4,
    "▁an": 5,
    "é": 6,
    "▁▁": 7,
    "<0x0a": 8,
}


def sentencepiece(decoder: decoders.Decoder) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=dict(SENTENCEPIECE), merges=[], byte_fallback=True))
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens(["<unk>", "<s>"])
    return tokenizer


def test_sentencepiece_tokens_are_their_text_with_spaces_or_one_byte() -> None:
    """A tokenizer of the kind of Llama and Mistral."""
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    bytes_V = token_bytes(sentencepiece(decoders.Sequence(parts)), 10)
    assert bytes_V.tolist() == [0, 0, 1, 1, 1, 3, 2, 2, 5, 0]
    assert bytes_V.dtype == np.int64


def test_without_byte_fallback_a_token_is_what_it_says() -> None:
    assert token_bytes(sentencepiece(decoders.Metaspace()), 9).tolist() == [0, 0, 6, 6, 1, 3, 2, 2, 5]


def test_a_tokenizer_that_does_not_spell_the_text_is_refused() -> None:
    tokenizer = Tokenizer(models.WordPiece(vocab={"a": 0, "##b": 1}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    for decoder, name in ((decoders.WordPiece(), "WordPiece"), (None, "None")):
        if decoder is not None:
            tokenizer.decoder = decoder
        else:
            tokenizer = Tokenizer(models.WordPiece(vocab={"a": 0}))
        with pytest.raises(RequestError, match=rf"its decoder \({name}\) is neither byte-level nor"):
            token_bytes(tokenizer, 2)
