"""Held-out text for a study of heads: some sequences to measure on, and rows of others to search on.

In: a cache, and what the fit of some lenses did not train on. Out: a `HeldOutSample`. What is searched for on some rows
is measured on other sequences, so no figure is taken on rows that a direction was chosen by.
Shapes: N rows, S sequences, T tokens.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alens import randomness
from alens.errors import RequestError
from alens.evaluation.shards import JudgedText
from alens.statistics.groups import Groups
from alens.store.cache_reader import Cache


@dataclass(frozen=True, kw_only=True)
class HeldOutSample:
    """Rows to search on, and sequences to measure on."""

    rows_N: npt.NDArray[np.int64]
    """Rows of the cache, in order, none of them of the sequences below."""
    tokens_ST: npt.NDArray[np.int64]
    """Tokens of the sequences to measure on."""
    groups: Groups
    """The groups of these sequences: what intervals are over."""
    groups_S: npt.NDArray[np.int64]
    """The number of each sequence's group."""


def draw(
    cache: Cache, text: JudgedText, *, num_rows: int, num_sequences: int, min_position: int, seed: int
) -> HeldOutSample:
    """Draw at most `num_rows` rows at `min_position` or later, and `num_sequences` other sequences, all from `text`.

    Raises `RequestError` when there is no sequence left to search on.
    """
    shards = text.shards
    size = cache.plan.settings.rows_per_shard
    sequence, position, row = (
        np.concatenate(parts)
        for parts in (
            [cache.read_shard("rows/sequence", shard).astype(np.int64) for shard in shards],
            [cache.read_shard("rows/position", shard).astype(np.int64) for shard in shards],
            [np.arange(shard * size, (shard + 1) * size) for shard in shards],
        )
    )
    judged = text.mask(cache)[sequence]
    sequence, position, row = sequence[judged], position[judged], row[judged]
    sequences = np.unique(sequence)
    if num_sequences >= len(sequences):
        raise RequestError(
            f"{cache.root} has {len(sequences)} held-out sequences: with --sequences {num_sequences} none is left to "
            f"search on; give {len(sequences) - 1} at most, fewer leave more"
        )
    generator = randomness.generator(seed, randomness.STUDY_TEXT)
    chosen = np.sort(generator.permutation(sequences)[:num_sequences])
    usable = row[(position >= min_position) & ~np.isin(sequence, chosen)]
    groups = Groups.of(cache, chosen)
    return HeldOutSample(
        rows_N=np.sort(generator.permutation(usable)[:num_rows]),
        tokens_ST=np.stack([cache.tokens[number].astype(np.int64) for number in chosen]),
        groups=groups,
        groups_S=groups.numbers(chosen),
    )
