"""What a measurement of heads begins with: the heads that are asked for, a worker's share of the shards, and the model.

In: a cache, and a request to measure effects or Jacobians. Out: heads, what is left of each shard, and the cache's model.
"""

from collections.abc import Sequence
from typing import Any

from alens.effects.settings import EffectRequest, EffectSettings, JacobianRequest, JacobianSettings
from alens.heads import Heads, requested
from alens.job.progress import Progress, Report
from alens.job.worker import Worker
from alens.model import models
from alens.model.examine import examine_again
from alens.store.cache_reader import Cache
from alens.store.head_files import HeadFiles


def heads_to_measure(cache: Cache, settings: EffectSettings | JacobianSettings) -> Heads:
    """The heads that are asked for. Raises `RequestError` for one that the cache does not have."""
    cache.check_layers(settings.layers or ())
    every_head = Heads.grid(cache.plan.layers, range(cache.plan.model.n_heads))
    heads = requested(settings.layers, settings.heads, every_head)
    cache.check_layers(heads.layers)
    cache.check_heads(heads.columns)
    return heads


def left_to_measure(
    files: HeadFiles[Any], shards: Sequence[object], heads: Heads, worker: Worker
) -> dict[int, Heads]:
    """The heads that are not there yet, of each shard of this worker's that lacks some."""
    return {
        shard: left
        for shard in range(worker.index, len(shards), worker.count)
        if (left := files.left(shard, heads)) is not None
    }


def examined_model(
    cache: Cache, request: EffectRequest | JacobianRequest, report: Report
) -> models.LoadedModel:
    """The cache's model, loaded and found to compute what the plan says. Raises `RequestError`."""
    plan = cache.plan
    source = models.find_again(plan.model, cache.root, model=request.model, report=report)
    model = models.load(source, dtype=plan.settings.dtype, device=request.device, report=report)
    report(Progress(stage="examining the model"))
    examine_again(model, cache.tokens, plan, cache.root)
    return model
