"""A tokenizer in the middle of a text, where heads read and predict.

In: a `tokenizers` tokenizer. Out: the tokens of a stretch of text, and the text of a stretch of tokens, as they are
within a longer text. Tokenizers of SentencePiece's kind (Llama 2, Mistral, Gemma) treat the head of a text in a way of
their own: they put a space before it (`king` becomes `▁king`, ` king` becomes `▁` and `▁king`), and drop the space of
its first token when they decode (`▁king` says `king`). Byte-level tokenizers (GPT-2) do neither, unless they are told
to add a space. So a stretch is put behind an anchor, whose own part is taken away again.
"""

from collections.abc import Sequence
from typing import Any

ANCHORS = ("\n", ".", ",", "a")
"""Texts that a stretch is put behind: the first one that it does not melt into."""

MOST_TRIED = 10_000
"""Tokens looked at for one that others can be decoded behind."""


class WithinText:
    """A tokenizer that sees every stretch as the middle of a text."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._adds_space = self._encode("a") != self._behind("\n", "a")
        self._anchor = self._anchor_token()

    def ids(self, text: str) -> list[int]:
        """The tokens of `text` within a longer one: without a space that the tokenizer adds to the head."""
        if self._adds_space:
            for anchor in ANCHORS:
                if (found := self._behind(anchor, text)) is not None:
                    return found
        return self._encode(text)

    def text(self, ids: Sequence[int]) -> str:
        """What tokens say within a text, special ones too: with the space that the first one begins with."""
        if self._anchor is not None:
            anchor, says = self._anchor
            whole = self._decode([anchor, *ids])
            if whole.startswith(says):
                return whole[len(says) :]
        return self._decode(ids)

    def _behind(self, anchor: str, text: str) -> list[int] | None:
        """The tokens of `text` behind `anchor`; None where the anchor has no tokens of its own then."""
        before, whole = self._encode(anchor), self._encode(anchor + text)
        return whole[len(before) :] if before and whole[: len(before)] == before else None

    def _anchor_token(self) -> tuple[int, str] | None:
        """A token that others can stand behind without a change, and what it says.

        None where there is none, as with a decoder that puts spaces between all tokens.
        """
        for token in range(min(self._tokenizer.get_vocab_size(), MOST_TRIED)):
            says = self._decode([token])
            if says.isascii() and says.isalnum() and self._decode([token, token]) == 2 * says:
                return token, says
        return None

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text
