"""Steps against a clock: a recipe trains for a budget of seconds and is judged on the way.

In: a `Recipe` and a `Setting`. Out: a `Curve`: held-out KL against seconds of training; judging does not count.
"""

from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np
import torch

from against_published import step
from against_published.clock import now
from against_published.judge import Judge
from against_published.recipe import Recipe
from against_published.text import TokenBatch, packed_batches, sentence_batches
from alens.lens.whitening import Whitening
from alens.model.models import LoadedModel
from alens.store.cache_reader import Cache

PARTS = (1 / 32, 1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8, 1.0)
"""Parts of the budget after which a recipe is judged, and once before its first step."""


@dataclass(frozen=True)
class Point:
    """A curve at one time."""

    seconds: float
    steps: int
    rows: int
    kl: float
    """Held-out forward KL, the mean over the heads of the layer."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Held-out KL against seconds."""

    name: str
    note: str
    points: list[Point]
    kl_of_sum: float | None = None
    """At the end: of the summed heads, where that is what the loss reads."""
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def last(self) -> Point:
        return self.points[-1]

    @property
    def best(self) -> Point:
        return min(self.points, key=lambda point: point.kl)

    def reached(self, level: float) -> Point | None:
        """The first point at or below a level."""
        return next((point for point in self.points if point.kl <= level), None)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all methods share."""

    corpus: str
    cache: Cache
    model: LoadedModel
    layer: int
    judge: Judge
    train_shards: tuple[int, ...]
    whitening: Whitening
    log_mean_output_V: torch.Tensor

    def batches(self, recipe: Recipe) -> Generator[TokenBatch, None, None]:
        if not recipe.no_padding:
            return sentence_batches(self.corpus, self.model, recipe.batch)
        size = self.cache.plan.settings.sequences_per_shard
        chosen = np.concatenate([np.arange(shard * size, (shard + 1) * size) for shard in self.train_shards])
        return packed_batches(self.cache.tokens[chosen], recipe.batch)


def run(recipe: Recipe, setting: Setting, budget_s: float, max_steps: int | None = None) -> Curve:
    """Train by the recipe for `budget_s` seconds, or `max_steps` steps if that is sooner."""
    lenses = step.HeadLenses(
        recipe, setting.model, setting.layer, setting.whitening, setting.log_mean_output_V
    )
    adam = torch.optim.Adam(lenses.parameters(), lr=recipe.lr)
    batches = setting.batches(recipe)
    next(batches)  # opens the text, before the clock runs
    seconds, steps, rows = 0.0, 0, 0
    points = [Point(0.0, 0, 0, _mean(setting.judge.each(*lenses.folded())))]
    marks = [part * budget_s for part in PARTS]
    while marks and steps != max_steps:
        since = now()
        for group in adam.param_groups:
            group["lr"] = recipe.lr * (max(0.0, 1 - seconds / budget_s) if recipe.decay else 1.0)
        adam.zero_grad()
        for _ in range(recipe.accumulate):
            batch = next(batches)
            loss = step.loss(recipe, lenses, setting.model, batch, setting.layer)
            (loss / recipe.accumulate).backward()
            rows += int(step.rows_read(recipe, batch).sum())
        adam.step()
        steps += 1
        seconds += now() - since
        if seconds >= marks[0] or steps == max_steps:
            marks = [mark for mark in marks if mark > seconds]
            points.append(Point(seconds, steps, rows, _mean(setting.judge.each(*lenses.folded()))))
    batches.close()
    summed = None if recipe.each_head else setting.judge.summed(*lenses.folded())
    return Curve(name=recipe.name, note=recipe.mended(), points=points, kl_of_sum=summed)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
