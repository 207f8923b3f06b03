"""The plan of a sweep: every variant is resolved against the cache and checked before anything is trained.

In: a `SweepRequest`. Out: a `Planned` fit for each variant, with the rows it reads, and which variants a worker takes.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from alens.errors import RequestError
from alens.fit import fit_plan
from alens.fit.fit_plan import FitPlan
from alens.fit.recipe import Recipe
from alens.fit.settings import FitRequest
from alens.job.worker import Worker
from alens.lens.directory import LensDirectory
from alens.store.cache_reader import Cache
from alens.sweep.request import SweepRequest
from alens.sweep.variants import Variant


@dataclasses.dataclass(frozen=True)
class SharedRead:
    """The rows that a fit reads, and their order. Fits for which both are the same share one read."""

    site: str
    train_shards: tuple[int, ...]
    min_position: int
    batch_rows: int
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned:
    """A variant, resolved against the cache."""

    variant: Variant
    lenses: Path
    plan: FitPlan
    shared_read: SharedRead


def resolve(request: SweepRequest, cache: Cache) -> list[Planned]:
    """All variants, in the configuration's order. Raises one `RequestError` for all that cannot be fitted."""
    if not cache.sealed:
        raise RequestError(
            f"{cache.root} is not sealed: variants are compared on the same rows, so run `alens cache` again to finish it"
        )
    planned, wrong, tried = [], [], set[Any]()
    for variant in request.grid.variants:
        try:
            planned.append(_planned(request, variant, cache, tried))
        except RequestError as error:
            wrong.append(f"{variant.name}: {error}")
    if wrong:
        raise RequestError(
            f"{len(wrong)} of {len(request.grid.variants)} variants cannot be fitted, and none was: {'; '.join(wrong)}"
        )
    return planned


def _planned(request: SweepRequest, variant: Variant, cache: Cache, tried: set[Any]) -> Planned:
    settings, lenses = variant.settings, request.out / variant.name
    recipe = Recipe(settings, cache, torch.device("cpu"))
    if not recipe.trained:
        raise RequestError(
            f"{settings.lens} takes no steps, and needs no sweep: `alens fit` makes it in seconds"
        )
    plan = fit_plan.resolve(
        FitRequest(store=request.store, lenses=lenses, settings=settings, device=request.device), cache
    )
    fit_plan.check_place(LensDirectory(lenses))
    design = (settings.lens, repr(settings.lens_options), settings.site, plan.lenses)
    if design not in tried:
        _try_design(recipe, plan)
        tried.add(design)
    return Planned(
        variant=variant,
        lenses=lenses,
        plan=plan,
        shared_read=SharedRead(
            settings.site, plan.train_shards, recipe.min_position, settings.batch_rows, settings.seed
        ),
    )


def _try_design(recipe: Recipe, plan: FitPlan) -> None:
    """Makes the design for one layer, from the moments of one shard: it refuses options that are wrong."""
    first = plan.layers[:1]
    settings = dataclasses.replace(recipe.settings, layers=first, heads=plan.lenses.by_layer[first[0]])
    small = Recipe(settings, recipe.cache, recipe.device)
    for ground in small.grounds(plan.train_shards[:1]).values():
        small.design(ground)


def share(planned: Sequence[Planned], worker: Worker) -> list[Planned]:
    """The variants of one worker: an equal part of all, finished or not, in which those with the same read stay together."""
    reads = list(dict.fromkeys(fit.shared_read for fit in planned))
    together = sorted(planned, key=lambda fit: reads.index(fit.shared_read))
    first, stop = (len(together) * index // worker.count for index in (worker.index, worker.index + 1))
    return together[first:stop]
