"""The plan of a sweep: every variant resolved against the cache and found good before anything is trained.

In: a `SweepRequest`. Out: a `Planned` fit for each variant, with the rows it reads; `sweep.json`, which says what
the directory is for; and which variants a worker takes.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from alens.errors import DamageError, RequestError
from alens.fit import fit_plan
from alens.fit.fit_plan import FitPlan
from alens.fit.recipe import Recipe, with_rate
from alens.fit.settings import FitRequest
from alens.job.worker import Worker
from alens.store import document, durable, leftovers, typed
from alens.store.cache_reader import Cache
from alens.store.durable import write_errors
from alens.sweep.variants import Grid, Variant

PLAN = "sweep.json"
FORMAT = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """Everything `alens sweep` was asked for."""

    grid: Grid
    store: Path
    """A sealed cache."""
    out: Path
    """The directory to write: a lens directory a variant, and the table."""
    worker: Worker = dataclasses.field(default_factory=Worker)
    at_once: int | None = None
    """Variants in memory at once; None for what half of the free memory holds."""
    device: str = "auto"
    checkpoint_every: int = 500
    """Steps between checkpoints."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """Which rows a fit reads, in which order: fits that agree in it can share one read."""

    site: str
    train_shards: tuple[int, ...]
    min_position: int
    batch_rows: int
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned:
    """A variant, resolved."""

    variant: Variant
    lenses: Path
    plan: FitPlan
    reading: Reading


def resolve(request: SweepRequest, cache: Cache) -> list[Planned]:
    """All variants, in the configuration's order. Raises `RequestError` that names those that cannot be fitted."""
    if not cache.sealed:
        raise RequestError(
            f"{cache.root} is not sealed: variants are compared on the same rows, so run `alens cache` again to finish it"
        )
    found, wrong, tried = [], [], set[Any]()
    for variant in request.grid.variants:
        try:
            found.append(_planned(request, variant, cache, tried))
        except RequestError as error:
            wrong.append(f"{variant.name}: {error}")
    if wrong:
        raise RequestError(
            f"{len(wrong)} of {len(request.grid.variants)} variants cannot be fitted, and none was: {'; '.join(wrong)}"
        )
    return found


def _planned(request: SweepRequest, variant: Variant, cache: Cache, tried: set[Any]) -> Planned:
    settings, lenses = variant.settings, request.out / variant.name
    recipe = Recipe(settings, cache, torch.device("cpu"))
    plan = fit_plan.resolve(
        FitRequest(store=request.store, lenses=lenses, settings=settings, device=request.device), cache
    )
    fit_plan.check_place(lenses)
    design = (settings.lens, repr(settings.lens_options), settings.site, plan.heads)
    if design not in tried:
        _try_design(recipe, plan)
        tried.add(design)
    return Planned(
        variant=variant,
        lenses=lenses,
        plan=plan,
        reading=Reading(
            settings.site, plan.train_shards, recipe.min_position, settings.batch_rows, settings.seed
        ),
    )


def _try_design(recipe: Recipe, plan: FitPlan) -> None:
    """Make the design of one layer, on the moments of one shard: it says which of its options are wrong."""
    settings = dataclasses.replace(recipe.settings, layers=plan.layers[:1])
    small = Recipe(settings, recipe.cache, recipe.device)
    for ground in small.grounds(plan.train_shards[:1]).values():
        small.design(ground)


def body(request: SweepRequest, cache: Cache) -> dict[str, Any]:
    """What `sweep.json` holds."""
    return {
        "format": FORMAT,
        "cache_plan": cache.plan.identity,
        "base": with_rate(request.grid.base).to_json(),
        "variants": {v.name: with_rate(v.settings).to_json() for v in request.grid.variants},
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Begun:
    """What `sweep.json` holds."""

    __pydantic_config__ = typed.STRICT

    format: int
    cache_plan: str
    base: dict[str, Any]
    variants: dict[str, dict[str, Any]]

    def __post_init__(self) -> None:
        """Raises `TypeError`: what is read may come from anywhere."""
        for name, settings in self.variants.items():
            if Path(name).name != name or not name.isprintable():
                raise TypeError(f"variants has {name[:60]!r}, which is no name of a directory")
            if settings.keys() != next(iter(self.variants.values())).keys():
                raise TypeError(f"variants.{name} has other settings than the first")


def put(out: Path, asked: dict[str, Any]) -> None:
    """Write `sweep.json` into a new or empty directory. Raises `RequestError` where it holds anything else."""
    with write_errors(out):
        leftovers.clear(out / PLAN)
        if not (out / PLAN).exists():
            durable.put(out / PLAN, document.encode(asked))
    check_same(out, read(out), asked)  # another worker may have begun at the same time


def check(out: Path, asked: dict[str, Any]) -> None:
    """Raises `RequestError` unless `out` is new, empty, or the directory of the same sweep."""
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out} is not a directory: name a directory for the sweep")
    if (out / PLAN).exists():
        check_same(out, read(out), asked)
    elif out.exists() and any(not path.name.endswith(durable.PARTIAL) for path in out.iterdir()):
        raise RequestError(f"{out} is neither empty nor a sweep: name another directory")


def read(out: Path) -> dict[str, Any]:
    """What `sweep.json` holds. Raises `RequestError` where there is none, `DamageError` for a damaged one."""
    try:
        found = document.decode(document.content(out / PLAN), str(out / PLAN))
    except (FileNotFoundError, NotADirectoryError):
        raise RequestError(f"{out} is no sweep (it has no {PLAN}): run `alens sweep` to begin one") from None
    except DamageError:
        raise DamageError(f"{out / PLAN} was altered: delete {out} and sweep again") from None
    if found.get("format") != FORMAT:
        raise RequestError(f"{out / PLAN} has format {found.get('format')}; this alens reads format {FORMAT}")
    typed.parse(_Begun, found, str(out / PLAN), f"delete {out} and sweep again")
    return found


def check_same(out: Path, begun: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raises `RequestError` that says in what the sweep in `out` is another than was asked for."""
    if begun == asked:
        return
    before, now = begun["variants"], asked["variants"]
    phrases = [
        *(f"it has no variant {name}" for name in now if name not in before),
        *(f"its variant {name} is not asked for" for name in before if name not in now),
        *(
            f"{field} of {name} is {now[name][field]} (begun: {before[name].get(field)})"
            for name in now
            if name in before
            for field in now[name]
            if now[name][field] != before[name].get(field)
        ),
    ]
    if begun["cache_plan"] != asked["cache_plan"]:
        phrases.insert(0, "it was begun on another cache")
    told = "; ".join(phrases[:4]) or "its base settings are others"
    raise RequestError(f"{out} holds another sweep: {told}. Ask for the same, or name a new OUT")


def share(planned: Sequence[Planned], worker: Worker) -> list[Planned]:
    """The worker's variants, those that share a read together: an equal part, whatever is finished already."""
    readings = list(dict.fromkeys(fit.reading for fit in planned))
    together = sorted(planned, key=lambda fit: readings.index(fit.reading))
    first, stop = (len(together) * index // worker.count for index in (worker.index, worker.index + 1))
    return together[first:stop]
