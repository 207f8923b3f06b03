"""Reads the measured effects of heads beside a cache: rows, and what the model loses there without each head.

In: a cache with `effects/`, which `alens effects` wrote. Out: for some heads, the rows on which all of them were measured,
and the effects of a layer's heads on these rows.
Shapes: N rows, H heads, D d_model.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alens.errors import RequestError
from alens.heads import Head, Heads
from alens.store.cache_reader import Cache, open_cache
from alens.store.effect_files import FIRST_POSITION, EffectFiles

NO_DOCUMENT = -1
"""The document of a row, where documents are not known."""

HELD_OUT_SHARE = 0.1
"""The share of the shards whose rows count as held out where documents are not known: the last ones, as in a fit."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class EffectRows:
    """Which rows of a cache some effects are of; all fields have one entry a row."""

    row_N: Numbers
    """The row, as `Cache.read` and `Cache.z` take it."""
    shard_N: Numbers
    """The shard of the cache."""
    sequence_N: Numbers
    position_N: Numbers
    document_N: Numbers
    """The document in which the row's sequence begins; `NO_DOCUMENT` where documents are not known."""
    held_out_N: npt.NDArray[np.bool_]
    """Whether the row is of a document that no fit trains on: fits of effects train on the others."""

    def __len__(self) -> int:
        return len(self.row_N)

    @property
    def group_N(self) -> Numbers:
        """The document of each row, or its sequence where documents are not known: intervals are over these."""
        return self.sequence_N if (self.document_N == NO_DOCUMENT).all() else self.document_N


class EffectStore:
    """The measured effects of some heads of a cache.

    Attributes: `cache`, `heads` (those that can be read), `layers` (theirs) and `rows` (on which all of them were
    measured). The effect of a head is the change of the final normed residual when z of the head is replaced by its mean
    over the cache at every position, full minus ablated: a head that raises a token has a positive effect on it.
    """

    def __init__(self, cache: Cache, heads: Heads | None = None) -> None:
        """Effects of `heads`, by default of all that were measured, on the rows where all of these were.

        Raises `RequestError` when there are none.
        """
        files = EffectFiles(cache.paths.root, cache.plan.identity, cache.stage)
        by_shard = {shard: files.by_head(shard) for shard in files.shards()}
        there = sorted({head for shard in by_shard.values() for head in shard})
        if not there:
            raise RequestError(
                f"{cache.root} holds no effects of heads: run `alens effects {cache.root}` to measure them"
            )
        self.cache, self.heads = cache, heads or Heads.grouped(there)
        lacking = [f"{layer}.{head}" for layer, head in self.heads if (layer, head) not in there]
        self._files = {
            shard: has for shard, has in by_shard.items() if all(head in has for head in self.heads)
        }
        if not self._files:
            what = (
                f"effects of head {lacking[0]}"
                if lacking
                else "rows on which all these effects were measured"
            )
            raise RequestError(
                f"{cache.root} holds no {what}: run `alens effects {cache.root}` for these heads"
            )
        self._shards = list(self._files)
        self.layers = self.heads.layers
        self.rows = rows_of(cache, [s for shard in self._shards for s in self._sequences(shard)])

    def __repr__(self) -> str:
        return f"<EffectStore of {self.cache.root}: {len(self.rows):,} rows of {len(self.heads)} heads>"

    def _sequences(self, shard: int) -> tuple[int, ...]:
        return next(iter(self._files[shard].values())).record.sequences

    def delta(self, layer: int) -> npt.NDArray[np.float16]:
        """(N, H, D) float16: the effect of each head of `layer` among `heads`, in their order, on each of `rows`.

        Raises `DamageError` when a file is not what was written.
        """
        return np.concatenate([self._of_shard(shard, layer) for shard in self._shards])

    def _of_shard(self, shard: int, layer: int) -> npt.NDArray[np.float16]:
        numbers = self.heads.by_layer[layer]
        plan, by_head = self.cache.plan, self._files[shard]
        read: dict[Path, npt.NDArray[np.float16]] = {}
        columns = []
        for head in numbers:
            file = by_head[layer, head]
            if file.path not in read:
                read[file.path] = file.read(
                    len(file.record.sequences) * (plan.settings.seq_len - FIRST_POSITION), plan.model.d_model
                )
            columns.append(read[file.path][:, file.record.heads.index(head)])
        return np.stack(columns, axis=1)


def rows_of(cache: Cache, sequences: list[int]) -> EffectRows:
    """The rows of whole sequences, each from position 1 on, in the order of `sequences`."""
    settings = cache.plan.settings
    sequence_N = np.repeat(np.asarray(sequences, dtype=np.int64), settings.seq_len - FIRST_POSITION)
    position_N = np.tile(np.arange(FIRST_POSITION, settings.seq_len), len(sequences)).astype(np.int64)
    shard_N = sequence_N // settings.sequences_per_shard
    row_N = np.empty_like(sequence_N)
    for shard in np.unique(shard_N):
        place = np.empty((settings.sequences_per_shard, settings.seq_len), dtype=np.int64)
        stored_N = cache.read_shard("rows/sequence", int(shard)).astype(np.int64)
        first = int(shard) * settings.sequences_per_shard
        place[stored_N - first, cache.read_shard("rows/position", int(shard))] = np.arange(len(stored_N))
        here = shard_N == shard
        row_N[here] = int(shard) * settings.rows_per_shard + place[sequence_N[here] - first, position_N[here]]
    documents = cache.documents
    document_N = np.full_like(sequence_N, NO_DOCUMENT) if documents is None else documents[sequence_N]
    return EffectRows(
        row_N=row_N,
        shard_N=shard_N,
        sequence_N=sequence_N,
        position_N=position_N,
        document_N=document_N,
        held_out_N=np.isin(shard_N, shards_held_out(cache)),
    )


def shards_held_out(cache: Cache) -> list[int]:
    """The shards whose rows count as held out: those of held-out documents, else the last ones, as a fit takes them."""
    if apart := list(cache.plan.shards_of_held_out_documents):
        return apart
    number = cache.plan.num_shards
    return list(range(number - max(1, int(number * HELD_OUT_SHARE)), number)) if number > 1 else []


def measured_together(cache: Cache) -> frozenset[Head]:
    """The heads that share rows: those of the shard of effects that has most; none where there are no effects."""
    files = EffectFiles(cache.paths.root, cache.plan.identity, cache.stage)
    return max((frozenset(files.by_head(shard)) for shard in files.shards()), key=len, default=frozenset())


def measured(cache: Cache) -> tuple[int, int]:
    """(heads whose effects were measured, the most rows on which one of them was), from records alone."""
    files = EffectFiles(cache.paths.root, cache.plan.identity, cache.stage)
    rows: dict[Head, int] = {}
    for shard in files.shards():
        for head, file in files.by_head(shard).items():
            rows[head] = rows.get(head, 0) + len(file.record.sequences) * (
                cache.plan.settings.seq_len - FIRST_POSITION
            )
    return len(rows), max(rows.values(), default=0)


def open_effects(store: Path | str, heads: Heads | None = None) -> EffectStore:
    """The effects of heads that `alens effects STORE` measured; of `heads`, by default of all that were measured.

    >>> effects = open_effects("cache")                        # doctest: +SKIP
    >>> effects.rows.held_out_N, effects.delta(18).shape       # doctest: +SKIP

    Raises `RequestError` when there are none.
    """
    return EffectStore(open_cache(store), heads)
