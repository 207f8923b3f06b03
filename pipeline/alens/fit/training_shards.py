"""Which shards a fit trains on, and which it holds out.

In: an open cache, and how many rows are to be held out. Out: numbers of shards. Where the cache has shards of held-out
documents, none of them is trained on, and figures are taken on them alone; elsewhere the last shards are held out, so
that whole sequences are.
"""

import logging
import math
from pathlib import Path
from typing import Protocol

from alens.errors import RequestError
from alens.fit.settings import EVAL_ROWS, FitSettings
from alens.store.cache_reader import Cache
from alens.store.schema import Plan

log = logging.getLogger("alens")

Shards = tuple[int, ...]

SHARE = 0.1
"""The share of the shards that is held out where no number of rows is given; one shard at least."""


class Source(Protocol):
    """A cache, or one that is planned."""

    @property
    def root(self) -> Path | str: ...

    @property
    def plan(self) -> Plan: ...

    @property
    def shards(self) -> Shards:
        """The committed ones."""


def eval_rows(settings: FitSettings, plan: Plan) -> int:
    """Held-out rows for figures, as the settings ask, or at most a tenth of what the cache will hold, in whole shards."""
    size = plan.settings.rows_per_shard
    return settings.eval_rows or min(EVAL_ROWS, max(1, int(plan.num_shards * SHARE)) * size)


def choose_shards(cache: Cache, settings: FitSettings) -> tuple[Shards, Shards]:
    """(shards to train on, shards that are held out), as the settings ask. Raises `RequestError` for too few shards."""
    if not cache.sealed:
        log.warning(
            "%s is not sealed: fitting on the %d of %d shards that are committed",
            cache.root,
            len(cache.shards),
            cache.plan.num_shards,
        )
    train, held_out = wanted_shards(cache, settings)
    if cache.plan.settings.moments_only:
        return train, held_out
    _warn_of_documents(cache, settings, held_out)
    return train, held_out


def wanted_shards(cache: Source, settings: FitSettings) -> tuple[Shards, Shards]:
    """The same without warnings, also for a cache that is planned."""
    rows_per_shard = cache.plan.settings.rows_per_shard
    if cache.plan.settings.moments_only:
        return _without_figures(cache, settings)
    num_held_out = math.ceil(eval_rows(settings, cache.plan) / rows_per_shard)
    train, held_out = split_shards(cache, num_held_out)
    if not train or not held_out:
        raise RequestError(
            f"{cache.root} has {len(cache.shards)} committed shards, and {num_held_out} would be held out for {eval_rows(settings, cache.plan):,} --eval-rows: "
            "nothing is left to train on; take fewer --eval-rows, or cache more or smaller shards"
        )
    most = len(train) if settings.rows is None else math.ceil(settings.rows / rows_per_shard)
    return train[:most], held_out


def _without_figures(cache: Source, settings: FitSettings) -> tuple[Shards, Shards]:
    """The same where nothing can be judged: all shards are used but those of held-out documents."""
    apart = tuple(shard for shard in cache.shards if shard in cache.plan.shards_of_held_out_documents)
    train = tuple(shard for shard in cache.shards if shard not in cache.plan.shards_of_held_out_documents)
    if not train:
        raise RequestError(
            f"{cache.root} has no committed shard of text that may be trained on: run `alens cache`"
        )
    most = (
        len(train) if settings.rows is None else math.ceil(settings.rows / cache.plan.settings.rows_per_shard)
    )
    return train[:most], apart


def split_shards(cache: Source, num_held_out: int) -> tuple[Shards, Shards]:
    """(shards to train on, shards that are held out): `num_held_out` of these, or as many as held-out documents fill.

    Either may be empty where the cache has too few committed shards.
    """
    held_out = cache.plan.shards_of_held_out_documents
    apart = tuple(shard for shard in cache.shards if shard in held_out)
    if apart:
        return tuple(shard for shard in cache.shards if shard not in held_out), apart[-num_held_out:]
    return cache.shards[:-num_held_out], cache.shards[-num_held_out:]


def _warn_of_documents(cache: Cache, settings: FitSettings, held_out: Shards) -> None:
    """Warn where figures are taken on fewer rows than were asked for, or not on documents of their own."""
    apart, size = cache.plan.shards_of_held_out_documents, cache.plan.settings.rows_per_shard
    num_held_out = math.ceil(eval_rows(settings, cache.plan) / size)
    if apart and held_out[-1] not in apart:
        log.warning(
            "%s: no shard of its held-out documents is committed yet: figures are taken on documents that are trained on",
            cache.root,
        )
    elif len(held_out) < num_held_out and apart:
        log.warning(
            "%s: its held-out documents give %s rows of the %s that --eval-rows asks for: figures are taken on these, "
            "so that no document is both trained on and judged",
            cache.root,
            f"{len(held_out) * size:,}",
            f"{num_held_out * size:,}",
        )
