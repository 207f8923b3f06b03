"""Which documents are held out, and how many whole shards each side of a text gives. Pure: no I/O.

In: the length of each document and the settings. Out: a `Division`: the documents that no fit trains on, and how many
sequences are taken from them and from the others. Each side is a stream of its own, so no sequence has documents of
both.
Shapes: D documents.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alens import randomness
from alens.store.schema import CacheSettings

SHARE = 0.1
"""The largest share of the shards that is held out; it is one shard at least."""

MARGIN = 1.25
"""Documents are drawn until they have the wanted length, and have at most this multiple of it."""

FEWEST_DOCUMENTS = 2
"""How many documents are held out at least, where possible: a single one would stand for all."""

Lengths = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Division:
    """The two sides of a text."""

    held_out_D: Mask
    """Which documents are held out; none where the text cannot spare any."""
    train_sequences: int
    """How many sequences are taken from the other documents, in whole shards."""
    held_out_sequences: int
    """How many sequences are taken from the held-out documents, in whole shards."""
    left_out: int
    """Whole sequences that do not fill a shard of their side; 0 where `max_rows` cut the text."""
    spread: bool = False
    """Whether `max_rows` cut the text; then the sequences of a side are spread over all of it."""

    @property
    def sequences(self) -> int:
        return self.train_sequences + self.held_out_sequences


def held_out_shards(num_shards: int) -> int:
    """How many of `num_shards` hold held-out documents: a tenth at most, at least one, and none of a single shard."""
    return 0 if num_shards < 2 else max(1, int(num_shards * SHARE))


def divide(lengths_D: Lengths, settings: CacheSettings, *, documents_known: bool) -> Division:
    """Divide a text whose documents have `lengths_D` tokens.

    The whole text is one side where documents are not known, or none can be held out.
    """
    T, a_shard, total = settings.text_len, settings.sequences_per_shard, int(lengths_D.sum())
    wanted = settings.sequences_wanted
    num_sequences = total // T if wanted is None else min(total // T, wanted)
    nothing = np.zeros(len(lengths_D), dtype=np.bool_)
    shards = held_out_shards(num_sequences // a_shard) if documents_known else 0
    if shards:
        least = shards * a_shard * T
        share = shards * a_shard / num_sequences
        held_out_D = draw(
            lengths_D,
            wanted=max(least, round(share * total)),
            most=total - a_shard * T,
            seed=settings.seed,
        )
        held_out = int(lengths_D[held_out_D].sum()) // T
        train = (total - int(lengths_D[held_out_D].sum())) // T
        if held_out_D.any() and held_out >= a_shard:
            return _taken(held_out_D, train, held_out, shards if wanted is not None else None, settings)
    return _taken(nothing, total // T, 0, 0, settings)


def _taken(
    held_out_D: Mask, train: int, held_out: int, most_shards: int | None, settings: CacheSettings
) -> Division:
    """Whole shards of the sequences of each side, and no more than `max_rows` in all."""
    a_shard, wanted = settings.sequences_per_shard, settings.sequences_wanted
    whole_held_out = held_out // a_shard * a_shard
    if most_shards is not None:
        whole_held_out = min(whole_held_out, most_shards * a_shard)
    whole_train = train // a_shard * a_shard
    left_out = train + held_out - whole_train - whole_held_out
    spread = wanted is not None and train + held_out >= wanted
    if wanted is not None and spread:
        # Sequences are spread over the text, so max_rows does not cut off its end.
        whole_train, left_out = min(whole_train, wanted // a_shard * a_shard - whole_held_out), 0
    return Division(
        held_out_D=held_out_D,
        train_sequences=whole_train,
        held_out_sequences=whole_held_out,
        left_out=left_out,
        spread=spread,
    )


def draw(lengths_D: Lengths, *, wanted: int, most: int, seed: int) -> Mask:
    """(D,) whether each document is drawn, so that those drawn are together `wanted` long, and at most `most`.

    A document that would give far more than is wanted is passed over; where the others do not give enough, the
    shortest one that does is taken. No document is drawn where this would leave too little text.
    """
    drawn_D = np.zeros(len(lengths_D), dtype=np.bool_)
    limit, taken, count = min(most, int(wanted * MARGIN)), 0, 0
    for document in randomness.permutation(len(lengths_D), seed, randomness.HELD_OUT_DOCUMENTS):
        length = int(lengths_D[document])
        if taken >= wanted and count >= FEWEST_DOCUMENTS:
            break
        if length and taken + length <= limit:
            drawn_D[document] = True
            taken, count = taken + length, count + 1
    if taken < wanted:
        left = np.flatnonzero(~drawn_D & (lengths_D >= wanted - taken))
        if not len(left):
            return np.zeros_like(drawn_D)
        shortest = left[np.argmin(lengths_D[left])]
        if taken + int(lengths_D[shortest]) > most:
            return np.zeros_like(drawn_D)
        drawn_D[shortest] = True
    return drawn_D
