"""Which shards a fit trains on, and which it sets aside.

In: an open cache and how many shards are to be held out. Out: numbers of shards. Where the cache has shards of held-out
documents, none of them is trained on, and figures are taken on them alone; elsewhere the last shards are held out, so
that whole sequences are.
"""

import logging

from alens.store.cache_reader import Cache

log = logging.getLogger("alens")

Shards = tuple[int, ...]


def split(cache: Cache, num_held_out: int) -> tuple[Shards, Shards]:
    """(shards to train on, shards that are held out): `num_held_out` of these, or as many as held-out documents fill.

    Either may be empty where the cache has too few committed shards.
    """
    apart = tuple(shard for shard in cache.shards if shard in cache.plan.shards_of_held_out_documents)
    if apart:
        return tuple(shard for shard in cache.shards if shard not in apart), apart[-num_held_out:]
    return cache.shards[:-num_held_out], cache.shards[-num_held_out:]


def warn_of_documents(cache: Cache, num_held_out: int, judged: Shards) -> None:
    """Says where figures are not taken on as many rows as were asked for, or not on documents of their own."""
    apart, size = cache.plan.shards_of_held_out_documents, cache.plan.settings.rows_per_shard
    if apart and judged[-1] not in apart:
        log.warning(
            "%s: no shard of its held-out documents is committed yet: figures are taken on documents that are trained on",
            cache.root,
        )
    elif len(judged) < num_held_out and apart:
        log.warning(
            "%s: its held-out documents give %s rows of the %s that --eval-rows asks for: figures are taken on these, "
            "so that no document is both trained on and judged",
            cache.root,
            f"{len(judged) * size:,}",
            f"{num_held_out * size:,}",
        )
