"""The plan of a fit: the request, resolved once against the cache. Only `fit.json` is written.

In: a `FitRequest` and the open cache. Out: a `FitPlan`: steps, layers, heads, which shards are trained on and which are
held out. It is written before the first step, so that a resumed fit is the same fit.
"""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any

import torch
from annotated_types import Ge

from alens.errors import RequestError
from alens.evaluation.training import text_of_fit
from alens.fit.batches import BatchStream
from alens.fit.optimiser import BETAS, batch_ratio
from alens.fit.recipe import Recipe
from alens.fit.settings import MEAN_OUTPUT, FitRequest, FitSettings
from alens.fit.training_shards import choose_shards
from alens.heads import Heads
from alens.lens.directory import LensDirectory
from alens.sources import hub
from alens.store import document, durable, typed
from alens.store.cache_reader import Cache
from alens.store.durable import write_errors
from alens.store.one_writer import is_aside
from alens.store.typed import Natural

FORMAT, BY_LAYER_FORMAT = 2, 3
"""The format in which `fit.json` holds its own hash; before it, there was no format either. The second is that of fits whose
layers have different heads: only these have it, so that an older alens refuses them."""

Groups = tuple[tuple[Natural, ...], ...]
"""Layers, group after group."""


DEFAULTS_THAT_CHANGE = "start", "lr", "eval_rows"
"""Settings whose default depends on the cache, on the design and on the alens that begins the fit."""


@dataclass(frozen=True)
class FitPlan:
    """What `fit.json` holds."""

    __pydantic_config__ = typed.STRICT

    cache_plan: str
    """The identity of the cache's plan."""
    settings: dict[str, Any]
    """The `FitSettings`, as JSON."""
    steps: Natural
    """0 for a design that is whole at its start."""
    layers: tuple[Natural, ...]
    heads: tuple[Natural, ...] | dict[str, tuple[Natural, ...]]
    """Head numbers, the same in each layer, or by layer. `lenses` has both cases as one."""
    train_shards: tuple[Natural, ...]
    held_out_shards: tuple[Natural, ...]
    groups: Groups | None = None
    """Layers that are fitted together, group after group; None for all of them at once."""
    decay_power: Annotated[float, Ge(1)] | None = None
    """The power of Adam's decay rates; None for 1, as of steps of few rows and of plans from before there was a power."""

    @property
    def betas(self) -> tuple[float, float]:
        """Adam's decay rates a step."""
        first, second = (beta ** (self.decay_power or 1.0) for beta in BETAS)
        return first, second

    @property
    def start(self) -> str:
        """Where the lenses start; a plan from before the closed form has one start."""
        return str(self.settings.get("start", MEAN_OUTPUT))

    def __post_init__(self) -> None:
        """Raises `TypeError`: what is read may come from anywhere."""
        by_layer = list(self.heads.values()) if isinstance(self.heads, dict) else [self.heads]
        shards = {name: getattr(self, name) for name in ("train_shards", "held_out_shards")}
        for name, numbers in (
            ("layers", self.layers),
            *(("heads", one) for one in by_layer),
            *shards.items(),
        ):
            # A cache of moments alone has no rows to judge on, and may have no shard to spare.
            least = 0 if name == "held_out_shards" and not self.steps else 1
            if not least <= len(set(numbers)) == len(numbers):
                raise TypeError(
                    f"{name} is {str(list(numbers))[:60]}: input should be one or more, each once"
                )
        if not set(self.train_shards).isdisjoint(self.held_out_shards):
            raise TypeError("train_shards and held_out_shards share a shard")
        if self.groups is not None and sum(self.groups, ()) != self.layers:
            raise TypeError("groups are not the layers, one after the other")
        _ = self.lenses

    @cached_property
    def lenses(self) -> Heads:
        """The heads that lenses are fitted to."""
        return Heads.from_json(self.layers, self.heads)

    def of_group(self, layers: tuple[int, ...]) -> "FitPlan":
        """The plan of a group by itself."""
        return replace(self, layers=layers, heads=self.lenses.within(layers).as_json, groups=None)


def divided(layers: tuple[int, ...], most: int) -> Groups | None:
    """`layers` in groups of at most `most`, of nearly equal size; None where one group holds them all."""
    count = -(-len(layers) // most)
    ends = [number * len(layers) // count for number in range(count + 1)]
    return tuple(layers[start:end] for start, end in pairwise(ends)) if count > 1 else None


def fitted_on(plan: FitPlan, cache: Cache) -> dict[str, Any]:
    """What a `LensRecord` says of the model and the rows that lenses were fitted on."""
    return {
        "model": cache.plan.model,
        "tokenizer_sha256": cache.plan.tokens.tokenizer_sha256,
        "bos": cache.plan.tokens.bos,
        "cache": {
            "plan": plan.cache_plan,
            "fingerprint": cache.fingerprint,
            "corpus": {name: getattr(cache.plan.corpus, name) for name in ("id", "revision", "split")},
            "text": text_of_fit(cache, plan.train_shards),
            "train_shards": list(plan.train_shards),
            "held_out_shards": list(plan.held_out_shards),
        },
    }


def resolve(request: FitRequest, cache: Cache) -> FitPlan:
    """The plan of the requested fit. Raises `RequestError` where another fit was begun in LENSES."""
    hub.check_local(request.lenses)
    directory = LensDirectory(request.lenses)
    earlier = begun(directory)
    settings = request.settings
    if earlier is not None and earlier.cache_plan == cache.plan.identity:
        settings = as_begun(settings, earlier, cache)
    recipe = Recipe(settings, cache, torch.device("cpu"))
    if earlier is not None:
        check_same(request, recipe.settings, cache, earlier)
        return earlier
    if directory.holds_lenses:
        raise RequestError(
            f"{request.lenses} holds lenses that were not begun here (it has no fit.json): name a new directory"
        )
    train, held_out = choose_shards(cache, recipe.settings)
    ratio = batch_ratio(recipe.settings.batch_rows)
    return FitPlan(
        cache_plan=cache.plan.identity,
        settings=recipe.settings.to_json(),
        steps=_steps(recipe, train) if recipe.trained else 0,
        layers=recipe.heads.layers,
        heads=recipe.heads.as_json,
        train_shards=train,
        held_out_shards=held_out,
        decay_power=ratio if recipe.trained and ratio > 1 else None,
    )


def as_begun(settings: FitSettings, plan: FitPlan, cache: Cache) -> FitSettings:
    """The same settings, as the fit was begun with: the same heads in its words, and what is left to a default.

    Another alens has other defaults. A design that is whole at its start takes none of them.
    """
    begun_with: dict[str, Any] = {**plan.settings, "start": plan.start}
    left = [name for name in DEFAULTS_THAT_CHANGE if plan.steps and getattr(settings, name) is None]
    kept: dict[str, Any] = {name: begun_with.get(name) for name in left}
    if set(Recipe(settings, cache, torch.device("cpu")).heads) == set(plan.lenses):
        for name in ("layers", "heads"):
            words = begun_with.get(name)
            kept[name] = None if words is None else tuple(words)
    return replace(settings, **kept)


def _steps(recipe: Recipe, shards: tuple[int, ...]) -> int:
    settings = recipe.settings
    stream = BatchStream(
        reader=recipe.reader, shards=shards, batch_rows=settings.batch_rows, seed=settings.seed
    )
    return settings.steps or stream.steps_for(settings.epochs)


def begun(directory: LensDirectory) -> FitPlan | None:
    """The plan of the fit that was begun there, or None. Raises `DamageError` when it was altered."""
    path, mend = directory.fit_json, f"delete {directory} and fit again"
    try:
        body = document.decode_either(
            document.content(path, mend),
            str(path),
            mend,
            field="format",
            hashed=(FORMAT, BY_LAYER_FORMAT),
            unhashed=None,
            holds="settings and shards",
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    return typed.parse(FitPlan, body, str(path), mend)


def check_same(request: FitRequest, settings: FitSettings, cache: Cache, begun: FitPlan) -> None:
    """Raises `RequestError` where another fit than the requested one was begun in its directory."""
    differences = []
    if begun.cache_plan != cache.plan.identity:
        differences.append(f"it was begun on another cache than {cache.root}")
    asked = settings.to_json()
    begun_with = {"start": begun.start, **begun.settings}
    differences += [
        f"{name} is {asked[name]} (begun: {begun_with.get(name)})"
        for name in asked
        if asked[name] != begun_with.get(name)
    ]
    at_once = request.layers_at_once if begun.steps else None  # a design without training has no groups
    if at_once is not None and divided(begun.layers, at_once) != begun.groups:
        most = max(map(len, begun.groups or (begun.layers,)))
        differences.append(f"layers_at_once is {at_once} (begun: {most})")
    if differences:
        raise RequestError(
            f"{request.lenses} holds another fit: {'; '.join(differences)}. Ask for the same, or name a new LENSES"
        )


def check_place(directory: LensDirectory) -> None:
    """Raises `RequestError` unless a fit was begun there, or may begin there: the directory is new, or empty."""
    root = directory.root
    if root.exists() and not root.is_dir():
        raise RequestError(f"{root} is not a directory: name a directory for the lenses")
    with write_errors(root):
        foreign = root.exists() and not all(
            is_aside(path.name) or path == directory.stopped for path in root.iterdir()
        )
    if foreign and not directory.holds_fit:
        raise RequestError(f"{root} is neither empty nor a fit: name another directory")


def put_plan(directory: LensDirectory, plan: FitPlan) -> None:
    """Write `fit.json`, unless it is there already. Raises `RunError` when the disk refuses."""
    with write_errors(directory.root):
        if not directory.holds_fit:
            form = BY_LAYER_FORMAT if isinstance(plan.heads, dict) else FORMAT
            body = asdict(plan)
            for name in ("groups", "decay_power"):
                if body[name] is None:
                    del body[name]
            durable.put(directory.fit_json, document.encode({"format": form, **body}))


def drop_plan(directory: LensDirectory) -> None:
    """Remove what `put_plan` wrote."""
    with write_errors(directory.root):
        durable.remove(directory.fit_json)
