"""Sums of a whole shard, computed again and compared: moments of z and of the final residual, and the mean output.

In: a cache, its model, a shard. Out: differences of the arrays in `stats/`. The model runs on all sequences of the shard, as
when it was written.

Tolerances. A number that enters the sums is off by the noise of its row (`tolerance.noise`), a share of the row's largest,
which is taken as `LARGEST` times the largest root mean square of its layer. In a sum over n rows errors add up to n times
that at most, in a sum of products n times the error of one factor times the spread of the other. Where z is rounded before
it is summed, noise may take a number of a row to the neighbour; one such step of the largest z is allowed. Products with the
final residual are stored as float16 with a scale for each head: half a unit on either side.
Shapes: H heads, E d_head, D d_model, V vocabulary.
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch

from alens.cache import shard as shards
from alens.cache import tolerance
from alens.cache.array_differences import LargestDifferences
from alens.model.models import LoadedModel
from alens.store.arrays import statistic_name
from alens.store.cache_reader import Cache
from alens.store.encoding import INT8_LARGEST, unscaled
from alens.store.final_moments import kept
from alens.store.schema import Plan

Array = npt.NDArray[np.float64]
Arrays = Mapping[str, npt.NDArray[np.generic]]

LARGEST = 4.0
"""The largest number of a row beside the largest root mean square over rows."""

LARGEST_LOGIT = 100.0
"""Logits of models are smaller; their noise is a share of the largest."""


def compare(
    cache: Cache,
    model: LoadedModel,
    shard: int,
    after_batch: Callable[[int], None],
    within_batch: Callable[[], None],
    differences: LargestDifferences,
) -> None:
    """Add the differences of one shard. The callables may raise to stop, as those of `shard.compute`."""
    plan = cache.plan
    made = shards.compute(model, plan, np.asarray(cache.tokens), shard, after_batch, within_batch)
    sums = {name: array[0].astype(np.float64) for name, array in made.items() if name.startswith("stats/")}
    del made  # rows too, which may be large
    stored = {name: cache.read_shard(name, shard)[0].astype(np.float64) for name in sums}

    def add(name: str, ours: Array, theirs: Array, allowed: Array) -> None:
        difference = torch.from_numpy(np.abs(ours - theirs))[None]
        differences.add(name, difference, torch.from_numpy(allowed)[None], None, shard=shard)

    output_V = sums["stats/output"]
    add(
        "stats/output", output_V, stored["stats/output"], 2 * tolerance.noise(plan) * LARGEST_LOGIT * output_V
    )
    final = _Final(plan, sums) if kept(plan.settings) else None
    if final is not None:
        for name, allowed_D in final.allowed().items():
            add(name, sums[name], stored[name], allowed_D)
    for layer in plan.layers:
        of_layer = _Layer(plan, sums, layer)
        for which, allowed in of_layer.allowed().items():
            name = statistic_name(layer, which)
            add(name, sums[name], stored[name], allowed)
        if final is not None:
            name, scale = (statistic_name(layer, which) for which in ("cross", "cross_scale"))
            ours, theirs = (unscaled(some[name], some[scale]) for some in (sums, stored))
            add(name, ours, theirs, of_layer.allowed_cross(final, ours, sums[scale]))


def _rows(plan: Plan) -> int:
    """The rows of a shard that count."""
    return plan.settings.sequences_per_shard * (plan.settings.seq_len - 1)


class _Final:
    """How far sums of the final residual may be off."""

    def __init__(self, plan: Plan, sums: Mapping[str, Array]) -> None:
        self.rows = _rows(plan)
        mean_D = sums["stats/final/sum"] / self.rows
        variance_D = sums["stats/final/squares"] / self.rows
        self.spread_D = np.sqrt(variance_D)
        self.off = tolerance.noise(plan) * LARGEST * float(np.sqrt(variance_D + mean_D**2).max())
        """How far one number may be."""

    def allowed(self) -> dict[str, Array]:
        """By array, (D,) each."""
        off_D = np.full_like(self.spread_D, self.off)
        return {
            "stats/final/sum": self.rows * off_D,
            "stats/final/squares": self.rows * (2 * self.spread_D + off_D) * off_D,
        }


class _Layer:
    """How far sums of z of a layer may be off."""

    def __init__(self, plan: Plan, sums: Mapping[str, Array], layer: int) -> None:
        self.rows = _rows(plan)
        mean_HE = sums[statistic_name(layer, "sum")] / self.rows
        square_HE = np.diagonal(sums[statistic_name(layer, "outer")], axis1=1, axis2=2) / self.rows
        self.size_HE = np.sqrt(square_HE.clip(min=0))
        self.spread_HE = np.sqrt((square_HE - mean_HE**2).clip(min=0))
        self.largest = LARGEST * float(self.size_HE.max())
        self.off = self.rows * tolerance.noise(plan) * self.largest
        """How far a sum may be."""
        self.step = _step(plan) * self.largest
        """How far one row may be."""

    def allowed(self) -> dict[str, Array]:
        """By the last part of the array's name: (H, E), and (H, E, E)."""
        either_HEE = self.size_HE[:, :, None] + self.size_HE[:, None, :]
        return {
            "sum": np.full_like(self.size_HE, self.off + self.step),
            "outer": self.off * either_HEE + 2 * self.step * self.largest,
        }

    def allowed_cross(self, final: _Final, cross_HED: Array, scale_H: Array) -> Array:
        """(H, E, D)."""
        summed_HED = self.off * final.spread_D + self.rows * final.off * self.spread_HE[:, :, None]
        step = self.step * LARGEST * float(final.spread_D.max())
        stored_HED = tolerance.HALF_UNIT * np.abs(cross_HED)
        smallest_H11 = (tolerance.SMALLEST_HALF_UNIT * scale_H)[:, None, None]
        allowed_HED: Array = summed_HED + step + 2 * (stored_HED + smallest_H11)
        return allowed_HED


def _step(plan: Plan) -> float:
    """The distance of two neighbours among the numbers that z is rounded to before it is summed, as a share of the largest."""
    settings = plan.settings
    if settings.moments_only:
        return 0.0
    if settings.z_dtype == "int8":
        return 1 / INT8_LARGEST
    return 2.0**-settings.keep_bits if settings.keep_bits is not None else 2 * tolerance.HALF_UNIT
