"""What lenses were trained on, as their record says, and which sequences of a cache that is.

In: `lens.json` and a cache, of the fit or of anything else. Out: `Training`: a mask of sequences, or why it cannot be
told. A fit writes down what is needed with `text_of_fit`.
Shapes: B sequences of the cache.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alens.lens.saved import Lenses
from alens.store.reader import Cache
from alens.store.schema import CorpusRecord
from alens.store.status import array_specification

MOST_CHARACTERS = 1_000_000
"""The most that document numbers may take in `lens.json`: more than a hundred thousand stretches of them."""

SEQUENCES_A_LOOK = 4096

NUMBERING = ("text_column", "document_column", "row_documents")
"""With the files, what the numbers of documents depend on."""

Mask = npt.NDArray[np.bool_]


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
        text = said.get("text")
        if not isinstance(text, dict):
            return cls(None, "it does not say which text it was fitted on")
        if not set(text["files"]) & {file.sha256 for file in cache.plan.corpus.files}:
            return cls(np.zeros(cache.plan.tokens.sequences, dtype=np.bool_))
        if (
            _same_numbers(text, cache.plan.corpus)
            and text["trained_documents"]
            and cache.token_documents is not None
        ):
            return cls(_holding(cache, _numbers(text["trained_documents"])))
        if text["tokens_sha256"] == cache.plan.tokens.sha256:
            return cls(_in_shards(cache, said["train_shards"], text["sequences_per_shard"]))
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


def _same_numbers(text: Mapping[str, Any], corpus: CorpusRecord) -> bool:
    """Whether documents have the same numbers in both."""
    return text["files"] == [file.sha256 for file in corpus.files] and all(
        text[name] == getattr(corpus, name) for name in NUMBERING
    )


def _numbers(specification: str) -> npt.NDArray[np.int64]:
    """The numbers of `3,17,42-45`."""
    ends = [tuple(map(int, part.split("-"))) for part in specification.split(",")]
    return np.concatenate([np.arange(run[0], run[-1] + 1) for run in ends])


def _holding(cache: Cache, documents: npt.NDArray[np.int64]) -> Mask:
    """(B,) whether a sequence holds a token of any of these documents."""
    assert cache.token_documents is not None
    trained = np.zeros(max(cache.plan.tokens.documents or 0, int(documents.max()) + 1), dtype=np.bool_)
    trained[documents] = True
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
