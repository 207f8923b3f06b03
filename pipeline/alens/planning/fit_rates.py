"""How fast a fit with the default settings is: a step of one layer, by its number of heads.

In: the model, the arrays of some rows, a budget. Out: `FitRates`. The timed code is the code of a fit: a step of
`LensModule` with the optimiser, first with few rows of one head, then with a whole batch, then with several heads.
Heads of a layer share work, and a GPU that is not full fits many in the time of one: so the time of a layer is a line
through one head and several, all of the layer where the budget allows.
Shapes: N rows, H heads, E d_head.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from alens.fit import plugin
from alens.fit.lens_module import LensModule
from alens.fit.objectives import OBJECTIVES
from alens.fit.objectives.objective import Objective
from alens.fit.optimiser import STATE, AveragedAdam
from alens.fit.settings import FitSettings
from alens.lens.designs import DESIGNS
from alens.lens.designs.design import Design, Ground
from alens.lens.maps import OLD_NORM
from alens.lens.whitening import Whitening
from alens.machine.allotment import free_bytes
from alens.model.models import LoadedModel
from alens.planning.budget import Budget, Clock, Took, timed
from alens.planning.model_rates import ModelRates
from alens.rows import moments
from alens.rows.final_norm import FinalNorm
from alens.rows.teacher import CompressedTeacher
from alens.store.arrays import scale_name, site_name, statistic_name
from alens.store.cache_reader import Targets, log_shares
from alens.store.encoding import dequantise
from alens.store.schema import Plan

FIRST_ROWS = 128
"""Rows of the first piece."""

WARM_UP_ROWS = 64
"""Rows of a step that only allocates, on a CPU; another device warms up with all rows, for which it chooses kernels."""

SOME_HEADS = 3
"""Heads that are fitted where the budget does not reach for all of a layer."""

SHARE_OF_MEMORY = 4
"""The probe takes at most the free memory divided by this, or one head."""

COPIES = 2 + len(STATE)
"""Float32 numbers for each weight in training: itself, its gradient, the optimiser's."""


@dataclass(frozen=True, kw_only=True)
class FitRates:
    """A step of a fit."""

    settings: FitSettings
    """The default settings, which the fit was timed with."""
    layer_s: float
    """Seconds a row of a layer, whatever its number of heads."""
    head_s: float
    """Seconds a row of each head: of one head on one thread of a CPU, which heads are given to."""
    head_step_s: float
    """Seconds a step that the optimiser takes for each head."""
    threads: int
    """Threads that heads are given to; 1 on another device."""
    heads: int
    """Heads that were fitted at once."""
    rows: int
    """Rows of the steps that were timed."""
    weights: int
    """Numbers that are trained for each head."""
    took: Took
    """The time that all of it took."""

    def step_s(self, heads: int, rows: int) -> float:
        """Seconds of a step of `rows` rows, for this many heads of one layer."""
        at_once = math.ceil(heads / self.threads)
        return rows * (self.layer_s + at_once * self.head_s) + heads * self.head_step_s


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A step that was timed."""

    heads: int
    rows: int
    loss: Took
    optimiser: Took
    weights: int
    """Numbers that were trained, over all heads."""

    @property
    def loss_s(self) -> float:
        """Seconds of loss and gradient: of CPUs, or of another device."""
        return self.loss.cpu_s if self.loss.threads else self.loss.wall_s

    def cost_s(self, heads: int, rows: int) -> float:
        """Seconds that a step with more heads and rows may take at most, with the one that warms up."""
        again = 2.0 if not self.loss.threads else 1.0 + WARM_UP_ROWS / rows
        optimiser = self.optimiser.cpu_s if self.loss.threads else self.optimiser.wall_s
        return heads / self.heads * (again * rows / self.rows * self.loss_s + 2 * optimiser)


def fit_rates(model: LoadedModel, rates: ModelRates, budget: Budget) -> FitRates:
    """Time steps of the default fit on the rows that were computed; they are repeated where they are few."""
    settings = FitSettings()
    probe = _Probe(model, rates, settings)
    one = several = probe.step(1, min(FIRST_ROWS, settings.batch_rows))
    took = one.loss + one.optimiser
    if one.cost_s(1, settings.batch_rows) <= budget.left:
        one = several = probe.step(1, settings.batch_rows)
        took += one.loss + one.optimiser
    heads = [count for count in (rates.plan.model.n_heads, SOME_HEADS) if 1 < count <= probe.most_heads(one)]
    affordable = [count for count in heads if one.cost_s(count, one.rows) <= budget.left]
    if affordable:
        several = probe.step(max(affordable), one.rows)
        took += several.loss + several.optimiser
    layer_s, head_s = _line(one, several)
    return FitRates(
        settings=settings,
        layer_s=layer_s / one.rows,
        head_s=head_s / one.rows,
        head_step_s=several.optimiser.alone_s / several.heads,
        threads=max(1, one.loss.threads),
        heads=several.heads,
        rows=one.rows,
        weights=several.weights // several.heads,
        took=took,
    )


def _line(one: _Step, several: _Step) -> tuple[float, float]:
    """Seconds of a layer and of each head, on the line through one head and several."""
    if several.heads == 1:
        return 0.0, one.loss_s
    head_s = min((several.loss_s - one.loss_s) / (several.heads - 1), several.loss_s / several.heads)
    head_s = max(head_s, 0.0)
    return max(several.loss_s - several.heads * head_s, 0.0), head_s


class _Probe:
    """Steps of the first cached layer."""

    def __init__(self, model: LoadedModel, rates: ModelRates, settings: FitSettings) -> None:
        self._model, self._arrays, self._plan, self._settings = model, rates.arrays, rates.plan, settings
        self._layer, self._device = rates.plan.layers[0], model.device
        design = plugin.find("lens", settings.lens, DESIGNS, Design)
        objective = plugin.find("objective", settings.objective, OBJECTIVES, Objective)
        self._design = design
        self._objective = plugin.make("objective", settings.objective, objective, settings.objective_options)
        self._lr = settings.lr or design.default_lr

    def step(self, heads: int, rows: int) -> _Step:
        """Time a step of some rows of some heads, after one that allocates what is needed."""
        module = self._module(heads)
        optimiser = AveragedAdam(module.parameters(), lr=self._lr)
        warm_up = rows if self._device.type == "cuda" else min(rows, WARM_UP_ROWS)
        for count in (warm_up, rows):
            chosen = np.resize(np.arange(self._plan.rows), count)
            z, teacher = {self._layer: self._z(chosen, heads)}, self._teacher(chosen)
            clock = Clock(self._device)
            module(z, teacher).sum().backward()
            loss = clock.took()
            _, step = timed(optimiser.step, self._device)
            optimiser.zero_grad()
        weights = sum(parameter.numel() for parameter in module.parameters())
        return _Step(heads=heads, rows=rows, loss=loss, optimiser=step, weights=weights)

    def most_heads(self, one: _Step) -> int:
        """The heads that the memory holds."""
        return int(free_bytes(self._device) // SHARE_OF_MEMORY // (4 * COPIES * one.weights))

    def _z(self, chosen: npt.NDArray[np.int64], heads: int) -> torch.Tensor:
        z_NHE = self._arrays[site_name(self._layer)][chosen, :heads]
        if self._plan.settings.z_dtype == "int8":
            z_NHE = dequantise(z_NHE, self._arrays[scale_name(self._layer)][chosen, :heads])
        return torch.from_numpy(z_NHE).to(self._device)

    def _module(self, heads: int) -> LensModule:
        arrays, layer = self._arrays, self._layer
        counted = max(1, int((arrays["rows/position"] > 0).sum()))
        sum_HE, outer_HEE = (arrays[statistic_name(layer, which)][0, :heads] for which in ("sum", "outer"))
        mean_HE, covariance_HEE = moments.of_sums(sum_HE, outer_HEE, counted)
        norm = self._model.final_norm
        ground = Ground(
            whitening=Whitening.from_moments(mean_HE, covariance_HEE).to(self._device),
            log_mean_output_V=torch.from_numpy(log_shares(arrays["stats/output"][0])).to(self._device),
            unembedding=lambda: (self._model.W_U_DV.float(), self._model.b_U_V.float()),
            final_norm=lambda: norm or FinalNorm.bare(OLD_NORM, self._model.W_U_DV.shape[0]).to(self._device),
            layer=layer,
        )
        design = plugin.make("lens", self._settings.lens, self._design, self._settings.lens_options, ground)
        return LensModule({layer: design}, self._objective).to(self._device)

    def _teacher(self, rows: npt.NDArray[np.int64]) -> CompressedTeacher:
        arrays = self._arrays
        targets = Targets(
            ids_NK=arrays["targets/ids"][rows],
            log_probs_NK=arrays["targets/log_probs"][rows],
            logsumexp_N=arrays["targets/logsumexp"][rows],
            entropy_N=arrays["targets/entropy"][rows],
            tail_ids_NM=arrays["targets/tail_ids"][rows],
        )
        return CompressedTeacher.from_targets(targets, self._device)


def fit_arrays(plan: Plan, layers: Sequence[int]) -> list[str]:
    """Names of the arrays that a fit of `layers` to compressed targets reads."""
    names = [site_name(layer) for layer in layers]
    if plan.settings.z_dtype == "int8":
        names += [scale_name(layer) for layer in layers]
    targets = ("ids", "log_probs", "logsumexp", "entropy", "tail_ids")
    return [*names, *(f"targets/{name}" for name in targets), "rows/position"]
