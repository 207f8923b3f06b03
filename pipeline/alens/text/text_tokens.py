"""The tokens of a corpus, in order.

In: a `Corpus` and a tokenizer. Out: the tokens of each piece of text, and whether a document starts with it;
end-of-text stands between documents. Two batches of text are in memory, whatever the size
of the corpus and of its documents: `joining` makes the tokens of whole documents from those of pieces.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from alens.errors import RequestError
from alens.text.corpus import Corpus, Piece
from alens.text.joining import Joiner
from alens.text.packing import Tokens

BYTES_A_BATCH, PIECES_A_BATCH = 1 << 20, 4096
"""Text that is tokenised at once: 64 long pieces of English, 21 of Chinese, or many short ones: enough for every core.
Making its tokens takes about 100 bytes of memory for each byte of text."""


@dataclass(frozen=True, kw_only=True)
class TextTokens:
    """A corpus with the tokenizer that reads it."""

    corpus: Corpus
    tokenizer: Any
    end_of_text: int | None
    """The token between documents."""
    dtype: str
    """The dtype of the tokens: uint16 or uint32."""
    bos: int | None = None
    """The token that each sequence begins with, before its text. None: it begins with text."""
    num_tokens: int | None = None
    """The size of the model's vocabulary, where the text is for a model: a token beyond it is refused."""

    @property
    def separator(self) -> int:
        """The token between documents. Raises `RequestError` when the tokenizer has none."""
        if self.end_of_text is None:
            raise RequestError(
                "the tokenizer has no end-of-text token to put between documents: leave out --document-column and --row-documents"
            )
        self._check([self.end_of_text])
        return self.end_of_text

    def encode(self, texts: list[str]) -> list[list[int]]:
        """The tokens of each text by itself, made on all cores."""
        encoded = self._joiner.encode(texts)
        for ids in encoded:
            self._check(ids)
        return encoded

    def encode_after(self, before: str, text: str) -> list[int]:
        """The tokens of a text that begins with a space, where it follows `before`."""
        if not before or self._joiner.begins_alike:
            return self.encode([text])[0]
        ids = self._joiner.encode_after(before, text)
        self._check(ids)
        return ids

    def pieces(self) -> Iterator[tuple[bool, Tokens]]:
        """Each piece in order: whether it starts a document, and its tokens, with `end_of_text` before each
        document but the first. The tokens of a document are those of its whole text.

        The tokenizer takes a batch on all cores (it is Rust, and leaves Python's lock alone) while a thread reads
        the next one.
        """
        is_first = True
        for starts_document, ids in self._joiner.tokens(_read_ahead(self.corpus.pieces())):
            before = [self.separator] if starts_document and not is_first else []
            is_first = False
            self._check(ids)
            yield starts_document, np.array([*before, *ids], dtype=self.dtype)

    def _check(self, ids: Sequence[int]) -> None:
        if self.num_tokens is not None:
            check_ids(ids, self.tokenizer, self.num_tokens, "the text")

    @cached_property
    def _joiner(self) -> Joiner:
        return Joiner(self.tokenizer)


def _read_ahead(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    with ThreadPoolExecutor(1, "alens-read") as thread:
        reading = thread.submit(_take, pieces)
        while batch := reading.result():
            reading = thread.submit(_take, pieces)
            yield batch


def _take(pieces: Iterator[Piece]) -> list[Piece]:
    """The next pieces, as many as are tokenised at once."""
    batch: list[Piece] = []
    size = 0
    for piece in islice(pieces, PIECES_A_BATCH):
        batch.append(piece)
        size += len(piece.text) if piece.text.isascii() else len(piece.text.encode())
        if size >= BYTES_A_BATCH:
            break
    return batch


def check_ids(ids: Sequence[int], tokenizer: Any, num_tokens: int, where: str) -> None:
    """Raises `RequestError` where an id in `where` ("the text") is beyond the `num_tokens` of the model.

    A tokenizer may hold more tokens than the model, often one for padding that was added later: what counts is
    whether they occur.
    """
    largest = max(ids, default=-1)
    if largest >= num_tokens:
        raise RequestError(
            f"{where} has the token {tokenizer.id_to_token(largest)!r}, number {largest:,}, and the model's vocabulary ends "
            f"at {num_tokens - 1:,}: tokenizer and model do not belong together, or that token was added to the tokenizer alone"
        )
