"""The settings of a fit, resolved on one cache: its objective, its readers, its designs.

In: `FitSettings` and an open cache. Out: a `Recipe`, from which the plan, the batches, the module and the held-out figures
are made, so that all of them read the same rows and fit the same targets.
Shapes: H heads, E width of the site's values, V vocabulary.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from alens.errors import RequestError
from alens.fit import plugin, start
from alens.fit.objectives import OBJECTIVES
from alens.fit.objectives.objective import Objective, TargetRows
from alens.fit.optimiser import batch_ratio
from alens.fit.settings import CLOSED_FORM, EVAL_ROWS, FitSettings
from alens.fit.training_shards import eval_rows
from alens.heads import Heads, requested
from alens.job.progress import Progress, Report, counted, silent
from alens.lens.closed_form import ClosedForm, closed_form
from alens.lens.designs import DESIGNS
from alens.lens.designs.design import Design, Ground
from alens.lens.maps import OLD_NORM
from alens.lens.whitening import Whitening
from alens.rows import moments
from alens.rows.columns import Columns, RowReader
from alens.rows.final_norm import FinalNorm
from alens.rows.narrow import Narrow
from alens.rows.teacher import Teacher
from alens.store.cache_reader import ENOUGH_SHARDS, Cache, log_shares
from alens.store.schema import ATTN_Z

QUICK_LOGITS = 2**34
"""Logits that are judged where no step is taken: 1,294 rows of the 270 heads of SmolLM2, a minute on two cores."""

LEAST_EVAL_ROWS = 256


class Recipe:
    """Settings, resolved against a cache. Raises `RequestError` for what it cannot do."""

    def __init__(self, settings: FitSettings, cache: Cache, device: torch.device) -> None:
        self.cache, self.device = cache, device
        self.objective = plugin.make(
            "objective",
            settings.objective,
            plugin.find("objective", settings.objective, OBJECTIVES, Objective),
            settings.objective_options,
        )
        self._design = plugin.find("lens", settings.lens, DESIGNS, Design)
        self.trained = self._design.trained
        """Whether steps are taken; not for a design that is whole at its start."""
        if self.trained:
            cache.check_rows()
        self.lacks_closed_form = start.lacking(settings, cache, self._design, self.objective)
        """Why the default start is not the closed form on this cache; None where it is, or cannot be on any."""
        begins = start.resolved(settings, cache, self._design, self.objective)
        rate = self._design.closed_form_lr if begins == CLOSED_FORM else self._design.default_lr
        rate *= math.sqrt(batch_ratio(settings.batch_rows))
        self.settings = replace(settings, start=begins, lr=rate if settings.lr is None else settings.lr)
        if self.trained:
            self.settings = replace(self.settings, eval_rows=eval_rows(settings, cache.plan))
        self.teacher = settings.teacher or self.objective.teachers[0]
        if self.teacher not in self.objective.teachers:
            raise RequestError(
                f"{settings.objective} cannot be fitted to the {self.teacher} teacher: take --teacher {self.objective.teachers[0]}"
            )
        cache.check_site(settings.site)
        cache.check_layers(settings.layers or ())
        self.heads = self._heads()
        cache.check_layers(self.heads.layers)
        cache.check_heads(self.heads.columns)
        if not self.trained:
            self._check_untrained(settings)
            logits_a_row = len(self.heads) * cache.plan.model.d_vocab
            few = min(eval_rows(settings, cache.plan), quick_rows(logits_a_row))
            self.settings = replace(self.settings, eval_rows=settings.eval_rows or few)

    def _check_untrained(self, given: FitSettings) -> None:
        """Raises `RequestError` for what a design without steps cannot do, or would ignore."""
        lens = given.lens
        if given.site != ATTN_Z:
            raise RequestError(f"{lens} reads z of heads: leave --site out")
        if not self.objective.is_forward_kl:
            raise RequestError(f"{lens} takes no steps, so it has no loss: leave --objective out")
        ignored = [
            name for name in ("steps", "lr", "top_k", "tail_samples") if getattr(given, name) is not None
        ]
        if ignored:
            raise RequestError(f"{lens} takes no steps: leave {', '.join(ignored)} out")

    @property
    def eval_rows(self) -> int:
        """Held-out rows for figures."""
        assert self.settings.eval_rows is not None, "a recipe's settings have a number"
        return self.settings.eval_rows

    def _heads(self) -> Heads:
        settings, plan = self.settings, self.cache.plan
        layers, heads, on_heads = settings.layers, settings.heads, settings.site == ATTN_Z
        if not on_heads and heads not in (None, (0,)):
            raise RequestError(f"the site {settings.site} has no heads: leave --heads out")
        for name, given in (("layers", layers), ("heads", heads)):
            if given is not None and (not given or len(set(given)) != len(given)):
                raise RequestError(f"{name} is empty or names one twice: name each once")
        there = Heads.grid(plan.layers, range(plan.model.n_heads) if on_heads else (0,))
        return requested(layers, heads, there)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers of these heads."""
        return self.heads.layers

    def of_layers(self, layers: Sequence[int]) -> "Recipe":
        """The same for some of its layers."""
        some = copy.copy(self)
        some.heads = self.heads.within(layers)
        for made in ("reader", "judge"):  # they read all layers
            some.__dict__.pop(made, None)
        return some

    @property
    def lr(self) -> float:
        """The learning rate of the first steps."""
        assert self.settings.lr is not None, "a recipe's settings have a rate"
        return self.settings.lr

    @property
    def min_position(self) -> int:
        """The first position whose rows are trained on."""
        if self.objective.last_position:
            return self.cache.plan.settings.seq_len - 1
        return self.settings.min_position

    @cached_property
    def reader(self) -> RowReader:
        """The reader of the rows to train on."""
        return self._reader(self.teacher, self._narrow())

    @cached_property
    def judge(self) -> RowReader:
        """The reader of held-out rows: with the exact teacher where the cache has one, and never narrowed."""
        return self._reader(self.cache.plan.settings.best_teacher, None)

    @property
    def unembedding(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`W_U` (D, V) and `b_U` (V,), also of a cache without rows, which has no reader."""
        if self.cache.plan.settings.moments_only:
            W_U_DV, b_U_V = (
                torch.from_numpy(self.cache.weights(name)).to(self.device) for name in ("W_U", "b_U")
            )
            return W_U_DV, b_U_V
        return self.reader.unembedding

    def _reader(self, teacher: str, narrow: Narrow | None) -> RowReader:
        return RowReader(
            self.cache, self.heads, teacher, self.min_position, self.device,
            site=self.settings.site, columns=self.objective.columns, narrow=narrow,
        )  # fmt: skip

    def _narrow(self) -> Narrow | None:
        settings, cached = self.settings, self.cache.plan.settings
        if settings.top_k is None and settings.tail_samples is None:
            return None
        if self.teacher == "exact":
            raise RequestError(
                "top_k and tail_samples belong to the compressed teacher: leave them out, or take it"
            )
        narrow = Narrow(
            top_k=settings.top_k or cached.top_k,
            tail_samples=settings.tail_samples or cached.tail_samples,
            seed=settings.seed,
        )
        narrow.check(cached.top_k, cached.tail_samples)
        return narrow

    def target(self, columns: Columns, teacher: Teacher) -> Teacher:
        """What these rows are fitted to."""
        rows = TargetRows(cache=self.cache, columns=columns, teacher=teacher, device=self.device)
        return self.objective.target(rows)

    def grounds(self, shards: Sequence[int], report: Report = silent) -> dict[int, Ground]:
        """What the design of each layer starts from, on the device; the moments are those of the first of `shards`."""
        first = shards[:ENOUGH_SHARDS]
        report(Progress(stage="reading moments"))
        of_z = moments.of_cache(self.cache, self.layers, first)
        log_mean_V = torch.from_numpy(log_shares(of_z.mean_output_V)).to(self.device)
        made: dict[str, Any] = {}
        grounds = {}
        for index, layer in enumerate(counted(self.layers, report, "whitening", "layers")):
            if self.settings.site == ATTN_Z:
                heads = list(self.heads.by_layer[layer])
                mean, covariance = of_z.mean_LHE[index, heads], of_z.covariance_LHEE[index, heads]
            else:
                mean, covariance = moments.of_site(self.reader, layer, first)
            grounds[layer] = Ground(
                whitening=Whitening.from_moments(mean, covariance).to(self.device),
                log_mean_output_V=log_mean_V,
                unembedding=lambda: self.unembedding,
                final_norm=self._final_norm,
                layer=layer,
                seed=self.settings.seed,
                made=made,
            )
        return grounds

    def _final_norm(self) -> FinalNorm:
        """The model's last norm. Raises `RequestError` where alens does not know its kind."""
        model = self.cache.plan.model
        if model.final_norm is not None and not model.final_norm.is_known:
            raise RequestError(
                f"the last norm of {model.architecture} is neither a layer norm nor an RMS norm, and the design "
                f"{self.settings.lens} ends in it: take another --lens"
            )
        return (FinalNorm.of_cache(self.cache) or FinalNorm.bare(OLD_NORM, model.d_model)).to(self.device)

    def closed_forms(self, shards: Sequence[int], report: Report = silent) -> dict[int, ClosedForm]:
        """The closed form of each layer on the first of `shards`. Raises `RequestError` where there is none."""
        start.resolved(replace(self.settings, start=CLOSED_FORM), self.cache, self._design, self.objective)
        report(Progress(stage="closed form"))
        return closed_form(self.cache, self.heads, shards[:ENOUGH_SHARDS])

    def design(self, ground: Ground, closed: ClosedForm | None = None) -> Design:
        """The design of a layer, at the closed form or, without one, at the start of its own."""
        settings = self.settings
        design = plugin.make("lens", settings.lens, self._design, settings.lens_options, ground)
        if closed is not None:
            design.start_at(closed)
        return design


def quick_rows(logits_a_row: int) -> int:
    """Held-out rows for figures that take seconds, where a row takes so many logits."""
    return min(EVAL_ROWS, max(LEAST_EVAL_ROWS, QUICK_LOGITS // logits_a_row))
