"""What a form costs a lens: some heads fitted to each form of a cache, judged on the same held-out rows.

In: a cache of two shards or more, and forms. Out: held-out KL of each probed head for every form, and its ratio to that
of the reference: z as stored with the exact teacher, or with the stored targets where there is none. Each form is written
as a cache of its own and fitted by `fit_lenses` with its defaults and one seed. Every lens is judged on the held-out rows
of the original cache.
"""

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from alens import randomness
from alens.errors import StoppedError
from alens.evaluation.judge import judge
from alens.evaluation.readings import Readings, lens_readings
from alens.evaluation.sums import ReadingSums
from alens.fidelity.forms import TargetForm, ZForm, stored_targets
from alens.fidelity.reencode import reencode
from alens.fidelity.sample import spread
from alens.fidelity.z_error import MeanAndWorst
from alens.fit.settings import MEAN_OUTPUT, FitRequest, FitSettings
from alens.fit.training_loop import fit_lenses
from alens.fit.training_shards import split_shards
from alens.heads import Heads
from alens.job.progress import Progress, Report, ShouldStop, never, silent
from alens.lens.lenses import load_lenses
from alens.rows.columns import RowReader
from alens.rows.held_out_rows import HeldOutPart, HeldOutRows
from alens.store.cache_reader import Cache

NO_CHECKPOINT = 2**62
"""Steps between checkpoints: none are needed, because a fit that is stopped is thrown away."""


def spread_heads(cache: Cache, count: int) -> Heads:
    """`count` heads, spread evenly over layers and heads; fewer where `count` cannot be divided so."""
    num_layers, num_heads = len(cache.plan.layers), cache.plan.model.n_heads
    for total in range(min(count, num_layers * num_heads), 0, -1):
        for layers in range(min(total, num_layers), 0, -1):
            if total % layers == 0 and total // layers <= num_heads:
                return Heads.grid(
                    spread(cache.plan.layers, layers), spread(range(num_heads), total // layers)
                )
    raise AssertionError(count)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The shards to fit and to judge on. A fit on the cache itself would hold out the same ones."""

    train: tuple[int, ...]
    held_out: tuple[int, ...]

    @classmethod
    def choose(cls, cache: Cache, num_rows: int, held_out_rows: int) -> "Rows":
        """At least `num_rows` to train on, and `held_out_rows` to judge on, if there are as many.

        At most a quarter of the shards is held out.
        """
        size, shards = cache.plan.settings.rows_per_shard, cache.shards
        held_out = max(1, min(-(-held_out_rows // size), len(shards) // 4))
        train, judged = split_shards(cache, held_out)
        return cls(train=spread(train, -(-num_rows // size)), held_out=judged)


@dataclass(frozen=True, kw_only=True)
class FitFigure:
    """How well the lenses of one form read."""

    name: str
    kl: dict[str, float]
    """Held-out KL of each head (`layer.head`), nats."""
    ratio: MeanAndWorst
    """The ratio of KL to that of the reference, over heads."""


Variant = tuple[str, ZForm | None, TargetForm | None]
"""A name, and the forms of z and targets where they differ from the stored ones."""

REFERENCE = "reference"
OTHER_ORDER = "other order of rows"
"""The reference fitted with another seed: differences of this size mean nothing."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Fits and judges the same heads on the same rows, one form after the other."""

    cache: Cache
    heads: Heads
    rows: Rows
    work: Path
    """A directory for caches and lenses; those of one form are there at a time."""
    device: torch.device
    seed: int = 0
    report: Report = silent
    should_stop: ShouldStop = never

    @property
    def exact(self) -> bool:
        """Whether the cache has the exact teacher to judge by."""
        return self.cache.plan.settings.exact_teacher

    def variants(self, z: Sequence[ZForm], targets: Sequence[TargetForm]) -> list[Variant]:
        """All fits, the reference first. With the exact teacher, also the stored and other targets, on z as stored."""
        variants: list[Variant] = [(REFERENCE, None, None), (OTHER_ORDER, None, None)]
        if self.exact:
            stored = stored_targets(self.cache.plan.settings)
            variants += [(form.name, None, form) for form in (stored, *targets)]
        return [*variants, *((form.name, form, None) for form in z)]

    def run(self, z: Sequence[ZForm], targets: Sequence[TargetForm]) -> list[FitFigure]:
        """Fit and judge all forms. Raises `StoppedError` when `should_stop` says so."""
        variants = self.variants(z, targets)
        bar = OneBar(self.report, len(variants))
        figures: list[FitFigure] = []
        reference: list[float] = []
        for place, variant in enumerate(variants):
            kls = self._fit(variant, bar.fit(place, variant[0]))
            reference = reference or kls
            ratios = [kl / base for kl, base in zip(kls, reference, strict=True)]
            figures.append(
                FitFigure(
                    name=variant[0],
                    kl=dict(zip(self.heads.names, kls, strict=True)),
                    ratio=MeanAndWorst.over(ratios, self.heads.names),
                )
            )
        return figures

    def _fit(self, variant: Variant, report: Report) -> list[float]:
        name, z, targets = variant
        other_order = name == OTHER_ORDER
        teacher: Literal["exact", "compressed"] = "exact" if self.exact and targets is None else "compressed"
        store, lenses = self.work / "cache", self.work / "lenses"
        settings = FitSettings(
            heads=self.heads.names,
            teacher=teacher,
            start=MEAN_OUTPUT,  # the same for all: only some of these caches have a closed form
            eval_rows=len(self.rows.held_out) * self.cache.plan.settings.rows_per_shard,
            seed=randomness.derived_seed(self.seed, randomness.OTHER_ORDER) if other_order else self.seed,
        )
        try:
            report(Progress(stage="writing a cache"))
            written = reencode(
                self.cache,
                store,
                shards=(*self.rows.train, *self.rows.held_out),
                layers=self.heads.layers,
                z=z,
                targets=targets,
                exact_teacher=teacher == "exact",
                device=self.device,
                should_stop=self.should_stop,
            )
            if written is None:
                raise StoppedError("")
            fit_lenses(
                FitRequest(
                    store=store,
                    lenses=lenses,
                    settings=settings,
                    device=self.device.type,
                    checkpoint_every=NO_CHECKPOINT,
                ),
                report=report,
                should_stop=self.should_stop,
            )
            report(Progress(stage="judging"))
            return self.judge(lenses)
        finally:
            shutil.rmtree(store, ignore_errors=True)
            shutil.rmtree(lenses, ignore_errors=True)

    def judge(self, lenses: Path) -> list[float]:
        """Held-out KL of each lens, nats, on the cache itself."""
        fitted = load_lenses(lenses)
        layers = self.heads.layers
        teacher: Literal["exact", "compressed"] = "exact" if self.exact else "compressed"
        reader = RowReader(self.cache, self.heads, teacher, FitSettings.min_position, self.device)
        maps = {layer: fitted.layer(layer).maps.to(self.device) for layer in layers}

        def readings(part: HeldOutPart) -> list[Readings]:
            return [one for layer in layers for one in lens_readings(maps[layer], part.values(layer))]

        shards = self.rows.held_out
        rows = HeldOutRows(reader=reader, shards=shards, num_rows=reader.num_rows(shards))
        sums = ReadingSums(len(self.heads), self.device)
        return [figures.kl for figures in judge(rows, readings, sums).means()]


class OneBar:
    """One bar over all fits, which have the same number of steps. Work beside the steps moves nothing, and is named."""

    def __init__(self, report: Report, total: int) -> None:
        self._report, self._total = report, total
        self._shown = Progress(stage="probe")

    def fit(self, place: int, name: str) -> Report:
        """The report for the fit number `place`, counted from 0."""

        def shown(part: Progress) -> None:
            fits = f"fit {place + 1} of {self._total}, {name}"
            if part.stage == "fit" and part.total:
                done, steps = place * part.total + part.done, self._total * part.total
                self._shown = Progress(stage="probe", done=done, total=steps, unit="steps")
            said = part.note if part.stage == "fit" else part.stage
            self._report(dataclasses.replace(self._shown, note=f"{fits}: {said}" if said else fits))

        return shown
