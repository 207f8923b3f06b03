"""Whether lenses can be judged on a cache, and on which of its shards.

In: lenses and a cache. Out: the numbers of shards: those that the fit held out on its own cache; all of another.
"""

import torch

from alens.errors import RequestError
from alens.lens.saved import Lenses
from alens.store.reader import Cache


def check_same_model(lenses: Lenses, cache: Cache) -> None:
    """Raises `RequestError` unless both are of one model, `DamageError`, now or when a layer is read, where weights are
    not those of the heads that the lenses name."""
    lenses.check_model(cache.plan.model.weights_sha256, f"the model of {cache.root}")
    lenses.tie(torch.from_numpy(cache.weights("W_O")))


def fitted_on(lenses: Lenses, cache: Cache) -> bool:
    """Whether this is the cache of their fit."""
    return bool(lenses.record.cache["plan"] == cache.plan.identity)


def judged_shards(lenses: Lenses, cache: Cache) -> tuple[int, ...]:
    """Held-out shards on the cache of the fit; every committed shard of another. Raises `RequestError`."""
    if fitted_on(lenses, cache):
        return held_out_shards(lenses, cache)
    if not cache.shards:
        raise RequestError(f"{cache.root} has no committed shard yet: run `alens cache` first")
    return cache.shards


def held_out_shards(lenses: Lenses, cache: Cache) -> tuple[int, ...]:
    """Those that the fit set aside. Raises `RequestError` where it was another cache, or one is not there."""
    if not fitted_on(lenses, cache):
        raise RequestError(f"{lenses.name} was not fitted on {cache.root}: it held out no shards of it")
    shards = tuple(lenses.record.cache["held_out_shards"])
    missing = [shard for shard in shards if shard not in cache.shards]
    if missing:
        raise RequestError(
            f"{cache.root} lacks shard {missing[0]}, which the fit held out: run `alens cache` again to write it"
        )
    return shards
