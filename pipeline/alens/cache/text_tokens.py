"""The text of a corpus -> its tokens, in order.

In: a `Corpus` and a tokenizer. Out: the tokens of each piece of text, and whether a document starts with it;
end-of-text stands between documents. Two batches of text are in memory, whatever the corpus' size.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from alens.cache.packing import Tokens
from alens.cache.text import Corpus, Piece
from alens.errors import RequestError

PIECES_A_BATCH = 256
"""Pieces tokenised at once: a few megabytes of text, enough for every core."""


@dataclass(frozen=True, kw_only=True)
class TextTokens:
    """A corpus with the tokenizer that reads it."""

    corpus: Corpus
    tokenizer: Any
    end_of_text: int | None
    """The token between documents."""
    dtype: str
    """The dtype of the tokens: uint16 or uint32."""

    @property
    def separator(self) -> int:
        """The token between documents. Raises `RequestError` when the tokenizer has none."""
        if self.end_of_text is None:
            raise RequestError(
                "the tokenizer has no end-of-text token to put between documents: leave out --document-column and --row-documents"
            )
        return self.end_of_text

    def encode(self, texts: list[str]) -> list[list[int]]:
        """The tokens of each text, on all cores."""
        return [
            encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ]

    def pieces(self) -> Iterator[tuple[bool, Tokens]]:
        """Each piece in order: whether it starts a document, and its tokens, with `end_of_text` before each
        document but the first.

        The tokenizer takes a batch on all cores (it is Rust, and leaves Python's lock alone) while a thread reads
        the next one.
        """
        pieces = self.corpus.pieces()
        first = True
        with ThreadPoolExecutor(1, "alens-read") as thread:
            reading = thread.submit(_take, pieces)
            while batch := reading.result():
                reading = thread.submit(_take, pieces)
                for piece, ids in zip(batch, self.encode([piece.text for piece in batch]), strict=True):
                    before = [self.separator] if piece.starts_document and not first else []
                    first = False
                    yield piece.starts_document, np.array([*before, *ids], dtype=self.dtype)


def _take(pieces: Iterator[Piece]) -> list[Piece]:
    return list(islice(pieces, PIECES_A_BATCH))
