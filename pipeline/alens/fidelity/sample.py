"""The rows that figures are measured on: a stretch of each of some committed shards; the rest is not read.

In: a cache, a number of rows, a seed. Out: a `RowSample` that reads any array at these rows. The rows of a shard are
permuted when it is written, so a stretch of them mixes its sequences. Rows at position 0 see only themselves; they are
left out, as in a fit.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from alens.errors import RequestError
from alens.store.cache_reader import Cache, Targets
from alens.store.encoding import Float16
from alens.store.values import Array

MOST_SHARDS = 8
"""A sample comes from at most this many shards, spread evenly over the cache."""


class RowSample:
    """Some rows of a cache. Attribute `shards`: the shards that hold them."""

    def __init__(self, cache: Cache, num_rows: int, seed: int) -> None:
        """Raises `RequestError` when no shard is committed."""
        if not cache.shards:
            raise RequestError(f"{cache.root} has no committed shard yet: run `alens cache` first")
        self.cache = cache
        self.shards = spread(cache.shards, min(MOST_SHARDS, num_rows))
        size = cache.plan.settings.rows_per_shard
        each = min(size, -(-num_rows // len(self.shards)))
        draw = np.random.default_rng(seed)
        starts = [shard * size + int(draw.integers(size - each + 1)) for shard in self.shards]
        self._spans = [slice(start, start + each) for start in starts]

    def __len__(self) -> int:
        return int(self._usable.sum())

    @cached_property
    def _usable(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self._read("rows/position") > 0)

    def _read(self, name: str) -> Array:
        return np.concatenate([self.cache.read(name, span) for span in self._spans])

    def read(self, name: str) -> Array:
        """The array of this name at the rows of the sample."""
        return np.asarray(self._read(name)[self._usable])

    def z(self, layer: int) -> Float16:
        """(N, H, E) float16: z of a layer, decoded."""
        parts = [self.cache.z(layer, span) for span in self._spans]
        return np.asarray(np.concatenate(parts)[self._usable])

    def row_numbers(self) -> npt.NDArray[np.int64]:
        """(N,) int64: the numbers of the rows in the text, before the permutation."""
        T = self.cache.plan.settings.seq_len
        return self.read("rows/sequence").astype(np.int64) * T + self.read("rows/position")

    def targets(self) -> Targets:
        """The stored targets of the rows."""
        return Targets(
            ids_NK=self.read("targets/ids"),
            log_probs_NK=self.read("targets/log_probs"),
            logsumexp_N=self.read("targets/logsumexp"),
            entropy_N=self.read("targets/entropy"),
            tail_ids_NM=self.read("targets/tail_ids"),
        )


def spread(among: Sequence[int], count: int) -> tuple[int, ...]:
    """`count` of the numbers in `among`, evenly spread, with the first and the last; all where there are fewer."""
    count = min(count, len(among))
    if count == 1:
        return (among[len(among) // 2],)
    return tuple(among[round(place * (len(among) - 1) / (count - 1))] for place in range(count))
