"""Reads the measured Jacobians of heads beside a cache: their mean over all sequences, and how certain it is.

In: a cache with `jacobians/`, which `alens jacobians` wrote. Out: for some heads, the mean Jacobian over the sequences on
which all of them were measured, and its standard error, from how the shards of sequences differ.
Shapes: S shards of sequences, H heads, E d_head, D d_model.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alens.errors import RequestError
from alens.heads import Head, Heads
from alens.store.cache_reader import Cache
from alens.store.effect_files import FIRST_POSITION
from alens.store.jacobian_files import JacobianFile, JacobianFiles
from alens.store.paths import SAME_POSITION, Reach


class JacobianStore:
    """The measured Jacobians of some heads of a cache.

    Attributes: `heads`, those that can be read; `sequences` of the cache on which all of them were measured.
    """

    def __init__(self, cache: Cache, heads: Heads | None = None, reach: Reach = SAME_POSITION) -> None:
        """Jacobians of `heads`, by default of all that were measured. Raises `RequestError` when there are none."""
        files = JacobianFiles(cache.paths.root, cache.plan.identity, reach, cache.stage)
        by_shard = {shard: files.by_head(shard) for shard in files.shards()}
        there = sorted({head for has in by_shard.values() for head in has})
        self._shards = [has for has in by_shard.values() if all(head in has for head in heads or there)]
        if not there or not self._shards:
            lacking = [f"head {layer}.{head}" for layer, head in heads or () if (layer, head) not in there]
            more = "" if reach == SAME_POSITION else f" --reach {reach}"
            raise RequestError(
                f"{cache.root} holds no {reach} Jacobians of {[*lacking, 'heads'][0] if there else 'heads'}: run "
                f"`alens jacobians {cache.root}{more}` to measure them"
            )
        self.heads = heads or Heads.grouped(there)
        self._model, self.reach = cache.plan.model, reach
        self.sequences = sorted(
            {s for has in self._shards for file in has.values() for s in file.record.sequences}
        )

    def mean(self, layer: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(H, E, D) float32, the mean Jacobian of each head of `layer` among `heads`, and (H,) its standard error, as a
        share of its norm; NaN from a single shard.

        Raises `DamageError` when a file is not what was written.
        """
        parts_SHED = np.stack([self._of_shard(has, layer) for has in self._shards])
        mean_HED = parts_SHED.mean(0)
        shards = len(parts_SHED)
        if shards < 2:
            return mean_HED, np.full(len(mean_HED), np.nan, dtype=np.float32)
        spread_H = ((parts_SHED - mean_HED) ** 2).sum((0, 2, 3)) / (shards * (shards - 1))
        norm_H = np.maximum((mean_HED**2).sum((1, 2)), np.finfo(np.float32).tiny)
        return mean_HED, np.sqrt(spread_H / norm_H)

    def _of_shard(self, has: Mapping[Head, JacobianFile], layer: int) -> npt.NDArray[np.float32]:
        """(H, E, D) of one shard."""
        read: dict[Path, npt.NDArray[np.float16]] = {}
        columns = []
        for head in self.heads.by_layer[layer]:
            file = has[layer, head]
            if file.path not in read:
                read[file.path] = file.read(self._model.d_head, self._model.d_model)
            columns.append(read[file.path][:, file.record.heads.index(head)])
        return np.stack(columns).astype(np.float32)


def measured_jacobians(cache: Cache, reach: Reach) -> tuple[int, int]:
    """(heads whose Jacobians of this reach were measured, the most rows on which one of them was), from records alone."""
    files = JacobianFiles(cache.paths.root, cache.plan.identity, reach, cache.stage)
    rows: dict[Head, int] = {}
    for shard in files.shards():
        for head, file in files.by_head(shard).items():
            positions = cache.plan.settings.seq_len - FIRST_POSITION
            rows[head] = rows.get(head, 0) + len(file.record.sequences) * positions
    return len(rows), max(rows.values(), default=0)
