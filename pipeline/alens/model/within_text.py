"""A tokenizer in the middle of a text, where heads read and predict.

In: a `tokenizers` tokenizer. Out: the tokens of a stretch of text, and the text of a stretch of tokens, as they are
within a longer text. Tokenizers of SentencePiece's kind (Llama 2, Mistral, Gemma) treat the beginning of a text
differently: they put a space before it (`king` becomes `▁king`, ` king` becomes `▁` and `▁king`), and drop the space
of its first token when they decode (`▁king` gives `king`). Byte-level tokenizers (GPT-2) do neither, unless they are
told to add a space. So a stretch is put behind an anchor, and the anchor's part is taken away again.
"""

from collections.abc import Sequence
from typing import Any

ANCHORS = ("\n", ".", ",", "a")
"""Texts that a stretch is put behind; the first one that does not merge with it is used."""

MOST_TRIED = 10_000
"""How many tokens are tried for one behind which others can be decoded."""


class WithinText:
    """A tokenizer that treats every stretch as the middle of a text."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._adds_space = self._encode("a") != self._behind("\n", "a")
        self._anchor = self._anchor_token()

    def ids(self, text: str) -> list[int]:
        """The tokens of `text` within a longer text, without the space that the tokenizer adds at a beginning."""
        if self._adds_space:
            for anchor in ANCHORS:
                if (ids := self._behind(anchor, text)) is not None:
                    return ids
        return self._encode(text)

    def text(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones too, with the space that the first one begins with."""
        if self._anchor is not None:
            anchor, anchor_text = self._anchor
            whole = self._decode([anchor, *ids])
            if whole.startswith(anchor_text):
                return whole[len(anchor_text) :]
        return self._decode(ids)

    def _behind(self, anchor: str, text: str) -> list[int] | None:
        """The tokens of `text` behind `anchor`; None where the two merge into a token."""
        before, whole = self._encode(anchor), self._encode(anchor + text)
        return whole[len(before) :] if before and whole[: len(before)] == before else None

    def _anchor_token(self) -> tuple[int, str] | None:
        """A token behind which others decode unchanged, and its text.

        None where there is none, as with a decoder that puts spaces between all tokens.
        """
        for token in range(min(self._tokenizer.get_vocab_size(), MOST_TRIED)):
            text = self._decode([token])
            if text.isascii() and text.isalnum() and self._decode([token, token]) == 2 * text:
                return token, text
        return None

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text
