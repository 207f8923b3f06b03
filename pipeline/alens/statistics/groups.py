"""The groups that intervals are over: whole documents where they are known, else whole sequences.

In: a cache and the sequences that are judged on. Out: `Groups`, which gives the number of each row's group. Rows of one
document are more alike than rows of two documents (intra-class correlation 0.18 for novels: intervals by sequence are
1.7 times too narrow for another novel), so a document is drawn or left out as a whole. docs/decisions/0034 has the
measurement.
Shapes: N rows, B sequences of the cache, G groups.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from alens.store.cache_reader import Cache

DOCUMENTS, SEQUENCES = "documents", "sequences"

FEW = 5
"""With fewer groups an interval is rough: they say little about how groups differ."""

Numbers = npt.NDArray[np.int64]


class Groups:
    """Groups of the sequences that are judged on.

    Attributes: `over`, which is `documents` or `sequences`; `count`, how many groups there are.
    """

    def __init__(self, over: str, sequences: Numbers, group_of: Numbers) -> None:
        """`sequences` (ascending) are judged on; `group_of` are any numbers that name the group of each."""
        _, dense = np.unique(group_of, return_inverse=True)
        self.over, self.count = over, int(dense.max(initial=-1)) + 1
        self._sequences, self._dense = sequences, dense.astype(np.int64)
        self._seen = np.zeros(len(sequences), dtype=np.bool_)

    @classmethod
    def of(cls, cache: Cache, sequences: Numbers) -> "Groups":
        """Documents, where `sequences` (numbers in the cache) hold two or more known ones; else the sequences themselves."""
        sequences, documents_B = np.unique(sequences), cache.documents
        if documents_B is not None and len(np.unique(documents_B[sequences])) > 1:
            return cls(DOCUMENTS, sequences, documents_B[sequences])
        return cls(SEQUENCES, sequences, sequences)

    @classmethod
    def of_shards(cls, cache: Cache, shards: Sequence[int]) -> "Groups":
        """Groups of all sequences of some shards."""
        size = cache.plan.settings.sequences_per_shard
        parts = [np.arange(shard * size, (shard + 1) * size) for shard in shards]
        return cls.of(cache, np.concatenate(parts))

    @property
    def sequences(self) -> int:
        """How many sequences `numbers` has seen a row of so far."""
        return int(self._seen.sum())

    def numbers(self, sequence_N: npt.NDArray[np.integer]) -> Numbers:
        """(N,) int64 in 0 .. count - 1: the group of each row, by the row's sequence."""
        places_N = np.searchsorted(self._sequences, sequence_N.astype(np.int64))
        self._seen[places_N] = True
        return self._dense[places_N]


def said(over: str, count: int) -> str:
    """The line below a table that says what the 95 % intervals are over."""
    if count < 2:
        return f"no intervals: a single {over[:-1]}"
    return f"95 % intervals over {count:,} {over}" + (f" (fewer than {FEW}: rough)" if count < FEW else "")
