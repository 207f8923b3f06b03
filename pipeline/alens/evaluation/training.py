"""Which text lenses were trained on, by their record, and which sequences of a cache hold it.

In: the record in `lens.json` and a cache, that of the fit or another one. Out: `Training`: a mask of sequences, or the
reason why there is none. A fit writes down what is needed with `text_of_fit`.
Shapes: B sequences of the cache, D documents of the text.
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
"""The longest list of document numbers in `lens.json`: more than a hundred thousand stretches of documents."""

SEQUENCES_AT_ONCE = 4096
"""Sequences whose documents are in memory at once."""

NUMBERING = ("text_column", "document_column", "row_documents")
"""The settings that the numbers of documents depend on, beside the files."""

Mask = npt.NDArray[np.bool_]

_RUNS = re.compile(r"\d{1,15}(-\d{1,15})?(,\d{1,15}(-\d{1,15})?)*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class TextOfFit:
    """The text of a fit, as `cache.text` in `lens.json` describes it."""

    __pydantic_config__ = typed.OPEN | {"str_max_length": MOST_CHARACTERS}

    files: list[str | None]
    text_column: str | None = None
    document_column: str | None = None
    row_documents: bool | None = None
    tokens_sha256: str | None = None
    sequences_per_shard: Count = 1
    trained_documents: str | None = None
    """The numbers of the training documents, as `3,17,42-45`; None where documents are not known."""

    def __post_init__(self) -> None:
        """Raises `TypeError` for document numbers of another form: the file may come from anywhere."""
        if self.trained_documents and not _RUNS.fullmatch(self.trained_documents):
            raise TypeError("trained_documents is not of the form 3,17,42-45")

    def trained(self, count: int) -> Mask:
        """(D,) which of `count` documents were trained on."""
        trained_D = np.zeros(count, dtype=np.bool_)
        for run in (self.trained_documents or "").split(","):
            first, _, last = run.partition("-")
            trained_D[int(first) : int(last or first) + 1] = True
        return trained_D


@dataclass(frozen=True)
class Training:
    """Which sequences of a cache were trained on."""

    trained_B: Mask | None
    """(B,) whether a sequence was trained on; None where that is unknown."""
    why: str = ""
    """The reason why it is unknown."""

    @classmethod
    def of(cls, lenses: Lenses, cache: Cache) -> "Training":
        """From the record of the lenses; reads the documents of the cache where they are needed."""
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
    """`cache.text` of `lens.json`: files, how documents are numbered, and which were trained on."""
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
    """Whether documents have the same numbers in both texts."""
    return text.files == [file.sha256 for file in corpus.files] and all(
        getattr(text, name) == getattr(corpus, name) for name in NUMBERING
    )


def _holding(cache: Cache, trained_D: Mask) -> Mask:
    """(B,) whether a sequence holds a token of a document that was trained on."""
    assert cache.token_documents is not None
    parts = range(0, len(cache.token_documents), SEQUENCES_AT_ONCE)
    return np.concatenate(
        [trained_D[cache.token_documents[start : start + SEQUENCES_AT_ONCE]].any(axis=1) for start in parts]
    )


def _in_shards(cache: Cache, shards: Sequence[int], sequences_per_shard: int) -> Mask:
    """(B,) which sequences belong to these shards."""
    inside_B = np.zeros(cache.plan.tokens.sequences, dtype=np.bool_)
    for shard in shards:
        inside_B[shard * sequences_per_shard : (shard + 1) * sequences_per_shard] = True
    return inside_B
