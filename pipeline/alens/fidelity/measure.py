"""All figures of a cache's fidelity: what its compression keeps, loses and costs, beside other choices.

In: a cache and a `FidelityRequest`. Out: a `Fidelity`, plain values for a table or JSON. The caches and lenses that are
written for the forms under test lie in a temporary directory, which is deleted afterwards.
"""

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alens.errors import StoppedError
from alens.fidelity.forms import TargetForm, ZForm, coarser_z, other_targets, stored_targets, stored_z
from alens.fidelity.probe_fits import OTHER_ORDER, REFERENCE, FitFigure, Probe, Rows, spread_heads
from alens.fidelity.probe_time import measured_rates, probe_seconds, usable_rows
from alens.fidelity.request import FidelityRequest
from alens.fidelity.sample import RowSample
from alens.fidelity.target_error import (
    ExactDistributions,
    KeptMass,
    Rounding,
    RowsDone,
    kept_mass,
    kl_to_exact,
    largest_k,
    remade_targets,
    rounding,
    tail_uniforms,
)
from alens.fidelity.z_bytes import stored_z_bytes, written_z_bytes
from alens.fidelity.z_error import ZError, z_errors
from alens.fit.recipe import Recipe
from alens.fit.settings import FitSettings
from alens.job.progress import Progress, Report, ShouldStop, counting, never, silent
from alens.pictures.numbers import duration, number_of
from alens.result import Result, flat
from alens.store.cache_reader import Cache
from alens.store.opened_cache import opened_cache

log = logging.getLogger("alens.fidelity")


@dataclass(frozen=True, kw_only=True)
class TargetFigure:
    """One form of targets."""

    top_k: int
    tail_samples: int
    stored: bool
    bytes_per_row: int
    kl_to_exact: float | None
    """KL(this form || exact), nats, mean over rows; None without the exact teacher."""
    fit: FitFigure | None


@dataclass(frozen=True, kw_only=True)
class ZFigure:
    """One form of z."""

    name: str
    stored: bool
    bytes_per_row: float
    """Bytes of z in all cached layers."""
    error: ZError | None
    """Error relative to the stored z; None for the stored form itself."""
    fit: FitFigure | None


@dataclass(frozen=True, kw_only=True)
class Fidelity(Result):
    """What compression keeps, loses and costs on a cache."""

    cache: str
    plan: str
    rows: int
    exact_teacher: bool
    kept_mass: list[KeptMass]
    rounding: Rounding | None
    targets: list[TargetFigure]
    z: list[ZFigure]
    heads: list[str]
    """The heads that lenses were fitted to, as `layer.head`; empty where none were."""
    train_rows: int
    held_out_rows: int
    reference: FitFigure | None
    other_order: FitFigure | None
    """The reference fitted again with another seed: differences of this size mean nothing."""
    notes: list[str]
    """What is missing from the figures or limits them, a sentence each."""

    def headline(self) -> str:
        """What was measured, and what the cache keeps of the model's distributions."""
        stored = next(mass for mass in self.kept_mass if mass.k == self.stored_top_k)
        return (
            f"{self.rows:,} rows, {len(self.targets)} forms of targets and {len(self.z)} of z; "
            f"the top {stored.k} tokens keep {stored.mean:.3f} of the probability"
        )

    def records(self) -> list[dict[str, Any]]:
        """One record for each form of targets and of z, as in the JSON document; `part` says which of the two."""
        body = self.to_json()
        return [{"part": part} | flat(form) for part in ("targets", "z") for form in body[part]]

    @property
    def stored_top_k(self) -> int:
        """k of the targets as they are stored."""
        return next(form.top_k for form in self.targets if form.stored)


def measure_fidelity(
    cache: Cache | Path | str,
    request: FidelityRequest,
    *,
    device: torch.device | None = None,
    report: Report = silent,
    should_stop: ShouldStop = never,
) -> Fidelity:
    """Measure a cache. The cache is only read.

    Raises `RequestError` for a request that the cache cannot answer, `StoppedError` when `should_stop` says so.
    """
    cache = opened_cache(cache)
    with tempfile.TemporaryDirectory(prefix="alens-fidelity-", dir=request.work) as work:
        try:
            return _Measurement(
                cache, request, device or torch.device("cpu"), Path(work), report, should_stop
            ).run()
        except StoppedError:
            raise StoppedError(
                f"stopped; nothing of an unfinished report on {cache.root} is kept: run again to begin anew"
            ) from None


class _Measurement:
    def __init__(
        self,
        cache: Cache,
        request: FidelityRequest,
        device: torch.device,
        work: Path,
        report: Report,
        should_stop: ShouldStop,
    ) -> None:
        settings, model = cache.plan.settings, cache.plan.model
        self.cache, self.request, self.device, self.work = cache, request, device, work
        self.report, self.should_stop = report, should_stop
        self.z = coarser_z(settings, request.keep_bits)
        self.targets = other_targets(settings, model, request.top_k, request.tail_samples)
        self.sample = RowSample(cache, request.rows, request.seed)
        self.heads = spread_heads(cache, request.probe_heads)
        if request.heads is not None:
            self.heads = Recipe(FitSettings(heads=request.heads), cache, device).heads
        self.fits = request.fit and len(cache.shards) > 1
        self.exact = ExactDistributions.of(cache, device) if settings.exact_teacher else None
        self._done, self._total = 0, 2 + len(self.targets) + len(self.z)

    def run(self) -> Fidelity:
        self._tell("kept mass")
        top_NK = None
        if self.exact is not None:
            final_ND, watch = self.sample.read("targets/final"), self._watch("kept mass")
            top_NK = self.exact.most_probable(final_ND, largest_k(self.sample), watch)
        kept = kept_mass(self.sample, top_NK)
        rounded = None if top_NK is None else rounding(top_NK[:, : self.cache.plan.settings.top_k])
        kls = self._target_kls()
        self._tell("error of z")
        errors = z_errors(self.sample, self.z, self.report, self.should_stop)
        if errors is None:
            raise StoppedError("")
        sizes = {form: self._size(form) for form in self.z}
        fits, rows = self._fits()
        return Fidelity(
            cache=str(self.cache.root),
            plan=self.cache.plan.identity,
            rows=len(self.sample),
            exact_teacher=self.exact is not None,
            kept_mass=kept,
            rounding=rounded,
            targets=self._target_figures(kls, fits),
            z=self._z_figures(errors, sizes, fits),
            heads=self.heads.names if rows else [],
            train_rows=usable_rows(self.cache, rows.train) if rows else 0,
            held_out_rows=usable_rows(self.cache, rows.held_out) if rows else 0,
            reference=fits.get(REFERENCE),
            other_order=fits.get(OTHER_ORDER),
            notes=self._notes(),
        )

    def _target_figures(self, kls: dict[TargetForm, float], fits: dict[str, FitFigure]) -> list[TargetFigure]:
        stored = stored_targets(self.cache.plan.settings)
        return [
            TargetFigure(
                top_k=form.top_k,
                tail_samples=form.tail_samples,
                stored=form == stored,
                bytes_per_row=form.bytes_per_row(self.cache.plan.model),
                kl_to_exact=kls.get(form),
                fit=fits.get(form.name),
            )
            for form in sorted({stored, *self.targets}, key=lambda form: (form.top_k, form.tail_samples))
        ]

    def _z_figures(
        self, errors: dict[ZForm, ZError], sizes: dict[ZForm, float], fits: dict[str, FitFigure]
    ) -> list[ZFigure]:
        stored = ZFigure(
            name=stored_z(self.cache.plan.settings).name,
            stored=True,
            bytes_per_row=stored_z_bytes(self.cache),
            error=None,
            fit=fits.get(REFERENCE),
        )
        others = [
            ZFigure(
                name=form.name,
                stored=False,
                bytes_per_row=sizes[form],
                error=errors[form],
                fit=fits.get(form.name),
            )
            for form in self.z
        ]
        return [stored, *others]

    def _target_kls(self) -> dict[TargetForm, float]:
        """KL to the exact distributions, mean over rows, of the stored targets and of the other forms."""
        if self.exact is None:
            return {}
        final_ND, row_numbers_N = self.sample.read("targets/final"), self.sample.row_numbers()
        forms = {stored_targets(self.cache.plan.settings): self.sample.targets()}
        for form in self.targets:
            self._tell(f"targets: {form.name}")
            uniforms_NM = tail_uniforms(self.cache.plan, row_numbers_N, form.tail_samples)
            made = remade_targets(form, final_ND, self.exact, uniforms_NM, self.should_stop)
            if made is None:
                raise StoppedError("")
            forms[form] = made
        kls_FN = kl_to_exact(list(forms.values()), final_ND, self.exact, self._watch("KL to exact"))
        return {form: float(kl_N.mean()) for form, kl_N in zip(forms, kls_FN, strict=True)}

    def _size(self, form: ZForm) -> float:
        self._tell(f"bytes of z: {form.name}")
        size = written_z_bytes(self.cache, form, self.heads.layers, self.work, self.should_stop)
        if size is None:
            raise StoppedError("")
        return size

    def _fits(self) -> tuple[dict[str, FitFigure], Rows | None]:
        if not self.fits:
            return {}, None
        rows = Rows.choose(self.cache, self.request.probe_rows, self.request.held_out_rows)
        probe = Probe(
            cache=self.cache,
            heads=self.heads,
            rows=rows,
            work=self.work,
            seed=self.request.seed,
            device=self.device,
            report=self.report,
            should_stop=self.should_stop,
        )
        variants = probe.variants(self.z, self.targets)
        rates = measured_rates(self.cache, -(-len(self.heads) // len(self.heads.layers)), self.device)
        log.info(
            "%d fits of %s to %s rows, judged on %s: about %s (--no-fit leaves them out)",
            len(variants),
            number_of(len(self.heads), "head"),
            f"{usable_rows(self.cache, rows.train):,}",
            f"{usable_rows(self.cache, rows.held_out):,}",
            duration(probe_seconds(self.cache, self.heads, rows, variants, rates)),
        )
        return {figure.name: figure for figure in probe.run(self.z, self.targets)}, rows

    def _notes(self) -> list[str]:
        stored = stored_z(self.cache.plan.settings)
        notes = []
        if self.exact is None:
            notes.append(
                "a cache with --exact-teacher would add the mass beyond the stored k, KL(stored || exact), and other "
                "k and m; fits are judged by the stored targets here"
            )
        if stored != ZForm("float16", None):
            notes.append(
                f"z is stored as {stored.name}: errors and ratios are relative to that, and only coarser forms are tried"
            )
        if self.request.fit and not self.fits:
            notes.append(
                f"no lens was fitted: that needs two committed shards, and {self.cache.root} has one"
            )
        return notes

    def _tell(self, note: str) -> None:
        """Report that the figure `note` begins."""
        if self.should_stop():
            raise StoppedError("")
        self.report(Progress(stage="figures", done=self._done, total=self._total, unit="figures", note=note))
        self._done += 1

    def _watch(self, stage: str) -> RowsDone:
        """Reports the rows of a pass over the vocabulary, and ends it when `should_stop` says so."""
        more = counting(self.report, stage, "rows", len(self.sample))

        def rows_done(rows: int) -> None:
            if self.should_stop():
                raise StoppedError("")
            more(rows)

        return rows_done
