"""The rows of a cache that every head of an atlas is read with: the same for all heads, in the order of the cache.

In: a cache and the text that lenses are judged on. Out: `ChosenRows`: numbers of rows, their places in the text, and the
values of a layer's heads on them, one layer in memory at a time. Rows of a shard are permuted, so the first ones of each
shard are a fair sample.
Shapes: N rows, H heads, E d_head, K top-k.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from alens.evaluation.shards import JudgedText
from alens.rows.row_scales import RowScales, scale_columns
from alens.store.arrays import scale_name, site_name
from alens.store.cache_reader import Cache
from alens.store.values import Array

MOST_SHARDS = 64
"""Shards that rows are taken from: a file is read whole to compare it with its hash."""


@dataclass(frozen=True, kw_only=True)
class ChosenRows:
    """Some rows of a cache."""

    cache: Cache
    rows_N: npt.NDArray[np.int64]
    """Their numbers in the arrays of the cache, ascending."""
    sequence_N: npt.NDArray[np.int64]
    position_N: npt.NDArray[np.int64]

    @classmethod
    def of_text(cls, cache: Cache, text: JudgedText, num_rows: int, min_position: int) -> "ChosenRows":
        """At most `num_rows` rows of `text`, at `min_position` and later, from `MOST_SHARDS` shards at most."""
        step = -(-len(text.shards) // MOST_SHARDS)
        shards = text.shards[::step]
        judged_B = text.mask(cache)
        rows, sequences, positions = [], [], []
        for number, shard in enumerate(shards):
            most = (number + 1) * num_rows // len(shards) - number * num_rows // len(shards)
            cache.check_files(shard, ["rows/sequence", "rows/position"])
            sequence_N, position_N = (
                cache.read_shard(f"rows/{name}", shard).astype(np.int64) for name in ("sequence", "position")
            )
            usable = np.flatnonzero((position_N >= min_position) & judged_B[sequence_N])[:most]
            rows.append(shard * cache.plan.settings.rows_per_shard + usable)
            sequences.append(sequence_N[usable])
            positions.append(position_N[usable])
        return cls(
            cache=cache,
            rows_N=np.concatenate(rows).astype(np.int64),
            sequence_N=np.concatenate(sequences),
            position_N=np.concatenate(positions),
        )

    def __len__(self) -> int:
        return len(self.rows_N)

    def z(self, layer: int, heads: Sequence[int]) -> torch.Tensor:
        """(H, N, E) float32: z of these heads. Raises `DamageError` for a file that is not the one that was committed."""
        names = [site_name(layer)]
        if self.cache.plan.settings.z_dtype == "int8":
            names.append(scale_name(layer))
        self._check(names)
        z_NHE = self.cache.z(layer, self.rows_N)[:, list(heads)]
        return torch.from_numpy(np.ascontiguousarray(z_NHE.transpose(1, 0, 2), dtype=np.float32))

    def read(self, name: str) -> Array:
        """An array of the cache, at these rows."""
        self._check([name])
        return self.cache.read(name, self.rows_N)

    def scales(self) -> RowScales:
        """What norms divide these rows by."""
        return RowScales.of_columns(self.cache, {name: self.read(name) for name in scale_columns(self.cache)})

    def _check(self, names: Sequence[str]) -> None:
        size = self.cache.plan.settings.rows_per_shard
        for shard in np.unique(self.rows_N // size).tolist():
            self.cache.check_files(shard, names)
