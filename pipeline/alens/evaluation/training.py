"""What lenses were trained on, as their record says, and which sequences of a cache that is.

In: `lens.json` and a cache, of the fit or of anything else. Out: `Training`: a mask of sequences, or why it cannot be
told. A fit writes down what is needed with `text_of_fit`.
Shapes: B sequences of the cache.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alens.lens.lenses import Lenses
from alens.store import typed
from alens.store.cache_reader import Cache
from alens.store.schema import CorpusRecord
from alens.store.status import array_specification
from alens.store.typed import Count

MOST_CHARACTERS = 1_000_000
"""The most that document numbers may take in `lens.json`: more than a hundred thousand stretches of them."""

SEQUENCES_A_LOOK = 4096

NUMBERING = ("text_column", "document_column", "row_documents")
"""With the files, what the numbers of documents depend on."""

Mask = npt.NDArray[np.bool_]

_RUNS = re.compile(r"\d{1,15}(-\d{1,15})?(,\d{1,15}(-\d{1,15})?)*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class TextOfFit:
    """What `lens.json` says of the text of a fit, in `cache.text`."""

    __pydantic_config__ = typed.OPEN | {"str_max_length": MOST_CHARACTERS}

    files: list[str | None]
    text_column: str | None = None
    document_column: str | None = None
    row_documents: bool | None = None
    tokens_sha256: str | None = None
    sequences_per_shard: Count = 1
    trained_documents: str | None = None
    """Their numbers, as `3,17,42-45`."""

    def __post_init__(self) -> None:
        """Raises `TypeError`: what is read may come from anywhere."""
        if self.trained_documents and not _RUNS.fullmatch(self.trained_documents):
            raise TypeError("trained_documents is not of the form 3,17,42-45")

    def trained(self, count: int) -> Mask:
        """(documents,) which of so many documents were trained on."""
        trained_D = np.zeros(count, dtype=np.bool_)
        for run in (self.trained_documents or "").split(","):
            first, _, last = run.partition("-")
            trained_D[int(first) : int(last or first) + 1] = True
        return trained_D


@dataclass(frozen=True)
class Training:
    """Which sequences of a cache lenses were trained on."""

    trained_B: Mask | None
    """(B,) whether they were; None where that cannot be told."""
    why: str = ""
    """It cannot."""

    @classmethod
    def of(cls, lenses: Lenses, cache: Cache) -> "Training":
        """Reads the documents of the cache where it takes that."""
        said = lenses.record.cache
        if said.get("plan") == cache.plan.identity:
            return cls(_in_shards(cache, said["train_shards"], cache.plan.settings.sequences_per_shard))
        if not isinstance(said.get("text"), dict):
            return cls(None, "it does not say which text it was fitted on")
        text = typed.parse(TextOfFit, said["text"], f"cache.text of {lenses.name}", "fit again")
        if not set(text.files) & {file.sha256 for file in cache.plan.corpus.files}:
            return cls(np.zeros(cache.plan.tokens.sequences, dtype=np.bool_))
        if (
            _same_numbers(text, cache.plan.corpus)
            and text.trained_documents
            and cache.token_documents is not None
        ):
            return cls(_holding(cache, text.trained(cache.plan.tokens.documents or 0)))
        if text.tokens_sha256 == cache.plan.tokens.sha256:
            return cls(_in_shards(cache, said["train_shards"], text.sequences_per_shard))
        return cls(
            None,
            f"it was fitted on text that {cache.root} holds too, and neither says by document what was taken",
        )


def text_of_fit(cache: Cache, train_shards: Sequence[int]) -> dict[str, Any]:
    """What `lens.json` says of the text: its files, how documents are numbered, and which were trained on."""
    corpus, plan = cache.plan.corpus, cache.plan
    trained = None
    if cache.token_documents is not None:
        size = plan.settings.sequences_per_shard
        seen = np.zeros(plan.tokens.documents or 0, dtype=np.bool_)
        for shard in train_shards:
            seen[cache.token_documents[shard * size : (shard + 1) * size]] = True
        trained = array_specification(np.flatnonzero(seen).tolist())
        trained = trained if len(trained) <= MOST_CHARACTERS else None
    return {
        "files": [file.sha256 for file in corpus.files],
        **{name: getattr(corpus, name) for name in NUMBERING},
        "tokens_sha256": plan.tokens.sha256,
        "sequences_per_shard": plan.settings.sequences_per_shard,
        "trained_documents": trained,
    }


def _same_numbers(text: TextOfFit, corpus: CorpusRecord) -> bool:
    """Whether documents have the same numbers in both."""
    return text.files == [file.sha256 for file in corpus.files] and all(
        getattr(text, name) == getattr(corpus, name) for name in NUMBERING
    )


def _holding(cache: Cache, trained: Mask) -> Mask:
    """(B,) whether a sequence holds a token of any of the documents that are `trained`."""
    assert cache.token_documents is not None
    parts = range(0, len(cache.token_documents), SEQUENCES_A_LOOK)
    return np.concatenate(
        [trained[cache.token_documents[start : start + SEQUENCES_A_LOOK]].any(axis=1) for start in parts]
    )


def _in_shards(cache: Cache, shards: Sequence[int], sequences_per_shard: int) -> Mask:
    """(B,) the sequences of these shards, of so many sequences each."""
    found = np.zeros(cache.plan.tokens.sequences, dtype=np.bool_)
    for shard in shards:
        found[shard * sequences_per_shard : (shard + 1) * sequences_per_shard] = True
    return found
