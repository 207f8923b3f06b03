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

from alens.fit.lens_module import LensModule
from alens.fit.optimiser import STATE, AveragedAdam
from alens.fit.settings import FitSettings
from alens.machine.allotment import free_bytes
from alens.model.models import LoadedModel
from alens.planning.budget import Budget, Clock, Took, timed
from alens.planning.fit_probe import FitProbe
from alens.planning.judging_rates import JudgingRates, judging_rates
from alens.planning.model_rates import ModelRates
from alens.store.arrays import scale_name, site_name
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
    """Seconds a row of a layer, whatever its number of heads: of all CPUs together, or of another device."""
    head_s: float
    """Seconds a row of each head, likewise."""
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
    map_bytes: int
    """Bytes of the saved map of each head."""
    shared_bytes: int
    """Bytes that are saved once for all lenses."""
    judging: JudgingRates
    at_closed_form: bool
    """Whether the fit starts at the closed form, which is judged before the first step."""
    took: Took
    """The time that all of it took."""

    def step_s(self, heads: int, rows: int) -> float:
        """Seconds of a step of `rows` rows, for this many heads of one layer."""
        busiest = math.ceil(heads / self.threads) / heads
        return rows * busiest * (self.layer_s + heads * self.head_s) + heads * self.head_step_s

    def scaled_from(self, heads: int) -> str | None:
        """What the rates were taken from, where that is less than a step of a layer with this many heads."""
        of_rows = f"{self.rows:,} of the {self.settings.batch_rows:,} rows of a step"
        of_heads = f"{self.heads} of the {heads} heads of a layer"
        if self.rows < self.settings.batch_rows:
            return of_rows if self.heads == heads else f"{of_rows}, {of_heads}"
        return of_heads if self.heads < heads else None


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
    """Time steps of the default fit on the rows that were computed, and what it does between and after them."""
    probe = FitProbe(model, rates)
    batch_rows = probe.settings.batch_rows
    one, module = _step(probe, 1, min(FIRST_ROWS, batch_rows))
    took = one.loss + one.optimiser
    if one.rows < batch_rows and one.cost_s(1, batch_rows) <= budget.left:
        one, module = _step(probe, 1, batch_rows)
        took += one.loss + one.optimiser
    several, most = one, _most_heads(probe, one)
    counts = [count for count in (probe.num_heads, SOME_HEADS) if 1 < count <= min(most, probe.num_heads)]
    for count in counts:
        if several is one and one.cost_s(count, one.rows) <= budget.left:
            several, module = _step(probe, count, one.rows)
            took += several.loss + several.optimiser
    layer_s, head_s = _line(one, several)
    maps = module.maps(probe.layer)
    return FitRates(
        settings=probe.settings,
        layer_s=layer_s / one.rows,
        head_s=head_s / one.rows,
        head_step_s=several.optimiser.alone_s / several.heads,
        threads=max(1, one.loss.threads),
        heads=several.heads,
        rows=one.rows,
        weights=several.weights // several.heads,
        map_bytes=sum(part.nbytes for part in maps.tensors().values()) // several.heads,
        shared_bytes=sum(part.nbytes for part in maps.shared_tensors().values()),
        at_closed_form=probe.at_closed_form,
        judging=judging_rates(probe, module, several.heads),
        took=took,
    )


def _line(one: _Step, several: _Step) -> tuple[float, float]:
    """Seconds of a layer and of each head, on the line through one head and several."""
    if several.heads == 1:
        return 0.0, one.loss_s
    head_s = min((several.loss_s - one.loss_s) / (several.heads - 1), several.loss_s / several.heads)
    head_s = max(head_s, 0.0)
    return max(several.loss_s - several.heads * head_s, 0.0), head_s


def _step(probe: FitProbe, heads: int, rows: int) -> tuple[_Step, LensModule]:
    """Time a step of some rows of some heads, after one that allocates what is needed."""
    module, device = probe.module(heads), probe.device
    optimiser = AveragedAdam(module.parameters(), lr=probe.lr)
    warm_up = rows if device.type == "cuda" else min(rows, WARM_UP_ROWS)
    for count in (warm_up, rows):
        z, teacher = {probe.layer: probe.z(count, heads)}, probe.teacher(count)
        clock = Clock(device)
        module(z, teacher).sum().backward()
        loss = clock.took()
        _, step = timed(optimiser.step, device)
        optimiser.zero_grad()
    weights = sum(parameter.numel() for parameter in module.parameters())
    return _Step(heads=heads, rows=rows, loss=loss, optimiser=step, weights=weights), module


def _most_heads(probe: FitProbe, one: _Step) -> int:
    """The heads that the memory holds."""
    return int(free_bytes(probe.device) // SHARE_OF_MEMORY // (4 * COPIES * one.weights))


def fit_arrays(plan: Plan, layers: Sequence[int]) -> list[str]:
    """Names of the arrays that a fit of `layers` to compressed targets reads."""
    names = [site_name(layer) for layer in layers]
    if plan.settings.z_dtype == "int8":
        names += [scale_name(layer) for layer in layers]
    targets = ("ids", "log_probs", "logsumexp", "entropy", "tail_ids")
    return [*names, *(f"targets/{name}" for name in targets), "rows/position"]
