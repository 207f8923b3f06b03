"""Which sequences of a cache effects and Jacobians are measured on: as many documents as possible; for effects held-out ones
among them.

In: a cache. Out: all its sequences in an order in which any beginning is such a sample, so that more rows can be measured
later. The order depends on the cache alone.
"""

import numpy as np
import numpy.typing as npt

from alens import randomness
from alens.store.cache_reader import Cache
from alens.store.effect_files import ROWS_PER_SHARD
from alens.store.effect_reader import shards_held_out

HELD_OUT_PART = 0.25
"""At least this share of the rows is of held-out documents, where there are some: readings are judged on them."""


def sequences_per_file(cache: Cache) -> int:
    """The sequences of one shard of effects: one batch of the model at most."""
    settings = cache.plan.settings
    return max(1, min(ROWS_PER_SHARD // settings.seq_len, settings.batch_size))


def sample_shards(cache: Cache, rows: int) -> list[list[int]]:
    """The sequences of each shard of effects that `rows` rows take; fewer where the cache has no more."""
    return _divided(cache, sample_order(cache), rows)


def training_shards(cache: Cache, rows: int) -> list[list[int]]:
    """The same of sequences that are not held out, so that readings are judged on others."""
    plan = cache.plan
    sequences = np.arange(plan.tokens.sequences)
    held_out_B = np.isin(sequences // plan.settings.sequences_per_shard, shards_held_out(cache))
    documents_B = sequences if cache.documents is None else cache.documents
    order = _dealt(sequences[~held_out_B], documents_B[~held_out_B], plan.settings.seed)
    return _divided(cache, order, rows)


def _divided(cache: Cache, order: list[int], rows: int) -> list[list[int]]:
    size = sequences_per_file(cache)
    wanted = -(-rows // (size * cache.plan.settings.seq_len)) * size
    taken = order[:wanted]
    return [taken[start : start + size] for start in range(0, len(taken), size)]


def sample_order(cache: Cache) -> list[int]:
    """All sequences: one of each document, then a second of each, and so on; those of held-out documents spread among the
    others."""
    plan = cache.plan
    sequences = np.arange(plan.tokens.sequences)
    held_out_B = np.isin(sequences // plan.settings.sequences_per_shard, shards_held_out(cache))
    documents_B = sequences if cache.documents is None else cache.documents
    apart, others = (
        _dealt(sequences[side_B], documents_B[side_B], plan.settings.seed)
        for side_B in (held_out_B, ~held_out_B)
    )
    documents = [len(np.unique(documents_B[side_B])) for side_B in (held_out_B, ~held_out_B)]
    share = max(HELD_OUT_PART, documents[0] / sum(documents))
    order: list[int] = []
    taken = 0
    while apart or others:
        from_apart = bool(apart) and (not others or taken < share * (len(order) + 1))
        order.append((apart if from_apart else others).pop(0))
        taken += from_apart
    return order


def _dealt(sequences_B: npt.NDArray[np.int64], documents_B: npt.NDArray[np.int64], seed: int) -> list[int]:
    """The sequences, one of each document in turn; which comes first is drawn."""
    drawn = randomness.permutation(len(sequences_B), seed, randomness.EFFECT_ROWS)
    turns: dict[int, int] = {}
    keyed = []
    for place, which in enumerate(drawn):
        document = int(documents_B[which])
        turns[document] = turns.get(document, -1) + 1
        keyed.append((turns[document], place, int(sequences_B[which])))
    return [sequence for _, _, sequence in sorted(keyed)]
