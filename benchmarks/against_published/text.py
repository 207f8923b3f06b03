"""Batches of text: sentences padded on the right, as published, or the cache's packed sequences.

In: a corpus whose rows are sentences, or the training sequences of a cache. Out: `TokenBatch`es without end.
Shapes: B sequences, T tokens.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from alens.model.models import LoadedModel
from alens.text.corpus import CorpusOptions, resolve


@dataclass(frozen=True)
class TokenBatch:
    """The input of one forward pass."""

    tokens_BT: torch.Tensor
    """int64."""
    real_BT: torch.Tensor
    """int64: 1 where a token is text, 0 where it is padding."""


def sentences(corpus: str) -> Iterator[str]:
    """The rows of a corpus in order, again and again."""
    resolved = resolve(corpus, CorpusOptions(row_documents=True))
    while True:
        for piece in resolved.stretches():
            yield piece.text


def padded(rows: list[str], model: LoadedModel) -> TokenBatch:
    """Tokenised, cut at the model's context, padded on the right with end-of-text."""
    encoded = model.tokenizer.encode_batch(rows, add_special_tokens=False)
    ids = [encoding.ids[: model.source.record.n_ctx] for encoding in encoded]
    longest = max(map(len, ids))
    pad = model.end_of_text or 0
    tokens_BT = torch.tensor([row + [pad] * (longest - len(row)) for row in ids])
    real_BT = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
    return TokenBatch(tokens_BT, real_BT)


def sentence_batches(corpus: str, model: LoadedModel, batch: int) -> Generator[TokenBatch, None, None]:
    """`batch` consecutive sentences at a time. Tokenising is part of each step, as published."""
    rows = sentences(corpus)
    while True:
        yield padded(list(islice(rows, batch)), model)


def packed_batches(train_BT: "np.ndarray[Any, Any]", batch: int) -> Generator[TokenBatch, None, None]:
    """`batch` whole sequences at a time, again and again."""
    place = 0
    while True:
        chosen = np.arange(place, place + batch) % len(train_BT)
        tokens_BT = torch.from_numpy(train_BT[chosen].astype(np.int64))
        yield TokenBatch(tokens_BT, torch.ones_like(tokens_BT))
        place += batch
