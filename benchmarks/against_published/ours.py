"""`alens` against the same clock: stage one and stage two, and stage two with the model in the loop.

In: a model, a text, a number of rows. Out: `Curve`s, and seconds a row of each part. Stage one counts whole
(finding and loading the model, tokens, forward passes, writing, reading back), and so does what stage two
does before its first step. With the model in the loop, a fit is the same fit to the last setting, but its
training shards are computed when they are asked for, in every pass, and never stored.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import torch

from against_published.clock import now
from against_published.race import Curve, Point
from alens import CacheRequest, FitRequest, fit_lenses, load_lenses, open_cache, write_cache
from alens.cache.shard import compute
from alens.cache.write_cache import ShardJob
from alens.fit.settings import FitSettings
from alens.job.progress import Progress
from alens.lens.directory import LensDirectory
from alens.model.models import LoadedModel
from alens.rows.columns import Columns, RowReader
from alens.store.cache_reader import Cache
from alens.store.schema import CacheSettings
from alens.text.corpus import CorpusOptions


@dataclass(frozen=True, kw_only=True)
class Text:
    """A model's text, as both stages are asked for it."""

    model: str
    corpus: str
    document_column: str | None


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One run of stage two, timed."""

    curve: Curve
    setup_s: float
    """Before the first step was done: opening, statistics, the engine."""
    steps_s: float
    rows: int
    lenses: Path


def stage_one(text: Text, store: Path, settings: CacheSettings) -> tuple[Cache, float, float]:
    """Write a cache; the cache, its seconds as a whole, and those before the first forward pass.

    These went into model and text: finding, hashing and loading the one, tokenising the other.
    """
    options = CorpusOptions(document_column=text.document_column)
    request = CacheRequest(
        model=text.model, corpus=text.corpus, store=store, settings=settings, options=options, device="cpu"
    )
    since, started_s = now(), []

    class Timed(ShardJob):
        def write(self, missing: list[int]) -> None:
            started_s.append(now() - since)
            super().write(missing)

    with mock.patch("alens.cache.write_cache.ShardJob", Timed):
        write_cache(request)
    return open_cache(store), now() - since, started_s[0]


def stage_two(name: str, store: Path, lenses: Path, settings: FitSettings, before_s: float) -> Fit:
    """Fit lenses; `before_s` is what stage one took. Judging on the way does not count."""
    since, wall_since, first_s = now(), time.perf_counter(), []

    def report(progress: Progress) -> None:
        first_s.append(now() - since)

    request = FitRequest(store=store, lenses=lenses, settings=settings, device="cpu")
    summary = fit_lenses(request, report=report)
    # The log has wall time: 1 second of it is so much on the clock of this comparison.
    pace = (now() - since) / (time.perf_counter() - wall_since)
    setup_s = first_s[0]  # the first step counts twice: it is in the log's seconds too
    lines = [json.loads(line) for line in LensDirectory(lenses).log.read_text().splitlines()]
    points = [
        Point(
            before_s + setup_s + pace * line["seconds"],
            line["step"],
            line["step"] * settings.batch_rows,
            _mean([kl for heads in line["held_out_loss"].values() for kl in heads]),
        )
        for line in lines
    ]
    parts = {
        "stage_one_s": before_s,
        "setup_s": setup_s,
        "steps_s": pace * summary.seconds,
        "waited_s": pace * summary.waited_s,
    }
    return Fit(
        curve=Curve(name=name, note="", points=points, extra={k: round(v, 2) for k, v in parts.items()}),
        setup_s=setup_s,
        steps_s=pace * summary.seconds,
        rows=summary.rows,
        lenses=lenses,
    )


def in_the_loop(
    name: str, model: LoadedModel, store: Path, lenses: Path, settings: FitSettings, before_s: float
) -> Fit:
    """The same fit with its training rows from the model, shard by shard, in every pass."""
    with mock.patch("alens.fit.recipe.RowReader", live_reader(model)):
        return stage_two(name, store, lenses, settings, before_s)


def live_reader(model: LoadedModel) -> type[RowReader]:
    """A `RowReader` that computes a shard instead of reading it; held-out rows are read."""

    class LiveReader(RowReader):
        def shard(
            self, shard: int, *more: str, start: int = 0, stop: int | None = None, **ranks: int
        ) -> Columns:
            if more:  # what judging asks for: it does not count, and it is the same for all
                return super().shard(shard, *more, start=start, stop=stop, **ranks)
            cache = self.cache
            plan = replace(cache.plan, settings=replace(cache.plan.settings, layers=self.layers))
            arrays = compute(model, plan, cache.tokens, shard, lambda _: None)
            keep = arrays["rows/position"] >= self.min_position
            return Columns({name: arrays[name][keep][start:stop] for name in self.names()})

    return LiveReader


def seconds_of(work: Callable[[], object]) -> float:
    """How long a call takes."""
    since = now()
    work()
    return now() - since


def statistics_s(model: LoadedModel, cache: Cache) -> float:
    """Seconds for the moments and the mean output of one shard: what whitening needs before the first step."""
    return seconds_of(lambda: compute(model, cache.plan, cache.tokens, 0, lambda _: None))


def folded(lenses: Path, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(H, E, V) and (H, V) of a lens directory."""
    fitted = load_lenses(lenses).layer(layer)
    return fitted.weight_HEV, fitted.bias_HV


def when_a_cache_pays(
    text: Text,
    model: LoadedModel,
    work: Path,
    settings: CacheSettings,
    fit: FitSettings,
    layers: tuple[int, ...],
) -> dict[str, float]:
    """Microseconds a row of stage one, of a fit from the cache, and of a fit with the model in the loop.

    `start_s` is what model and text take before the first row. Both ways need them, so they count for neither.
    """
    cache, cache_s, start_s = stage_one(text, work / "cache", replace(settings, layers=layers))
    fit = replace(fit, layers=layers, steps=None, epochs=1.0)
    cached = stage_two("cached", work / "cache", work / "cached", fit, 0.0)
    live = in_the_loop("live", model, work / "cache", work / "live", fit, 0.0)
    row_us = {
        "stage_one": (cache_s - start_s) / cache.plan.rows * 1e6,
        "fit_from_cache": cached.steps_s / cached.rows * 1e6,
        "fit_model_in_loop": live.steps_s / live.rows * 1e6,
    }
    row = {name: round(value, 1) for name, value in row_us.items()}
    row["start_s"] = round(start_s, 2)
    row["break_even_passes"] = round(break_even_passes(**row_us), 2)
    row["kl_from_cache"] = round(cached.curve.last.kl, 4)
    row["kl_model_in_loop"] = round(live.curve.last.kl, 4)
    return row


def break_even_passes(*, stage_one: float, fit_from_cache: float, fit_model_in_loop: float) -> float:
    """With more passes over the rows than this the cache is the shorter way; infinite where it never is.

    All are of a row, after model and text are there: `alens.planning.costs.break_even` with c + w, and f + g less
    max(r, g), as they were measured.
    """
    saved = fit_model_in_loop - fit_from_cache
    return stage_one / saved if saved > 0 else float("inf")


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
