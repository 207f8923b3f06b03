"""How many tokens a text has: exact when it can be tokenised in time, otherwise extrapolated from its first part.

In: CORPUS, a tokenizer, seconds. Out: a `TextEstimate`. The tokens of the first part are scaled up by its
share of the files: of their rows (parquet, whose footers count them) or of their bytes (.txt, .jsonl).
"""

import dataclasses
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alens.job.progress import Progress, Report
from alens.planning.budget import Budget, Clock
from alens.text import corpus as texts
from alens.text.file_rows import size_of
from alens.text.text_columns import Row
from alens.text.text_tokens import TextTokens

LEAST_PIECES = 64
"""Pieces that are read however long they take, so that there is something to extrapolate from."""


@dataclass(frozen=True, kw_only=True)
class TextEstimate:
    """How many tokens a text has, and how that is known."""

    num_tokens: int
    """Tokens of the text that the cache would read: all of it, or enough for `max_rows`."""
    exact: bool
    share_read: float
    """The share of the text's files that was read."""
    tokens_read: int
    seconds: float
    """Seconds that reading and tokenising take where nothing else runs."""
    first: npt.NDArray[Any]
    """The first tokens, in the order of the text."""
    lengths_D: npt.NDArray[np.int64] | None
    """(D,) the number of tokens of each document (one document where they are not known); None unless the whole text
    was read."""

    @property
    def tokens_a_second(self) -> float:
        return self.tokens_read / max(self.seconds, 1e-9)


@dataclass(kw_only=True)
class _Taken:
    """How much of a corpus was read, and whether that was everything."""

    pieces: int = 0
    characters: int = 0
    size: float = 0
    """The part of the files that these characters make up, in the unit of `size_of`: bytes, or rows of a table."""
    whole: bool = False


@dataclass(kw_only=True)
class _Stretch:
    """The stretch being read: where it begins and ends, in characters and in the unit of `size_of`."""

    characters: tuple[int, int] = (0, 0)
    size: tuple[float, float] = (0, 0)

    def size_before(self, characters: int) -> float:
        """The size of the text before a character of the stretch."""
        return float(np.interp(characters, self.characters, self.size))


@dataclass(frozen=True, kw_only=True)
class _FirstPart(texts.Corpus):
    """A corpus that ends when its budget is used, but not before LEAST_PIECES pieces."""

    budget: Budget
    taken: _Taken = field(default_factory=_Taken)
    _stretch: _Stretch = field(default_factory=_Stretch)
    _rows: list[float] = field(default_factory=list)
    """Sizes of the rows since the last stretch."""

    def pieces(self) -> Iterator[texts.Piece]:
        for piece in super().pieces():
            if self.taken.pieces >= LEAST_PIECES and not self.budget.left:
                return
            self.taken.pieces += 1
            self.taken.characters += len(piece.text)
            self.taken.size = self._stretch.size_before(self.taken.characters)
            yield piece
        self.taken.whole = True

    def stretches(self) -> Iterator[texts.Piece]:
        here = self._stretch
        for stretch in super().stretches():
            here.characters = (here.characters[1], here.characters[1] + len(stretch.text))
            here.size = (here.size[1], here.size[1] + sum(self._rows))
            self._rows.clear()
            yield stretch

    def file_rows(self) -> Iterator[Row]:
        for row in super().file_rows():
            self._rows.append(row.size)
            yield row


def estimate(
    text: TextTokens,
    *,
    enough: int | None,
    keep: int,
    budget: Budget,
    report: Report,
) -> TextEstimate:
    """Tokenise until the budget is used, or until there are `enough` tokens; the first `keep` are kept.

    Where documents are known, twice as many tokens are needed: held-out documents fill sequences of their own.
    """
    clock = Clock(torch.device("cpu"))
    corpus = text.corpus
    part = _FirstPart(record=corpus.record, paths=corpus.paths, budget=budget)
    surely = None if enough is None else enough * (2 if corpus.record.knows_documents else 1)
    first: list[npt.NDArray[Any]] = []
    num_tokens, lengths = 0, array("q")
    for starts_document, ids in dataclasses.replace(text, corpus=part).pieces():
        if starts_document:
            lengths.append(0)
        lengths[-1] += len(ids)
        if num_tokens < keep:
            first.append(ids)
        num_tokens += len(ids)
        report(Progress(stage="tokenise", done=num_tokens, total=enough, unit="tokens"))
        if surely is not None and num_tokens >= surely:
            break
    took = clock.took()
    is_enough = surely is not None and num_tokens >= surely
    # With enough tokens, the corpus was read further ahead than the tokens go.
    whole = part.taken.whole and not is_enough
    share = 1.0 if part.taken.whole else part.taken.size / sum(size_of(path) for path in corpus.paths)
    expected = num_tokens if is_enough or whole else round(num_tokens / share)
    return TextEstimate(
        num_tokens=expected if enough is None else min(expected, enough),
        exact=is_enough or whole,
        share_read=share,
        tokens_read=num_tokens,
        seconds=took.alone_s,
        first=np.concatenate(first)[:keep] if first else np.empty(0, text.dtype),
        lengths_D=np.array(lengths, dtype=np.int64) if whole else None,
    )
