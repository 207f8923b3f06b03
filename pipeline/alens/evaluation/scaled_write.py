"""The fair form of the unembedding: the mean output, and the direct write of a head times one fitted scalar.

`softmax(log mean output + s write)` reads what a head writes and knows what it writes on average, as a lens does; the plain
unembedding knows neither the mean output nor how far to believe a head. s is fitted by Newton's method, a scalar a head: KL
is convex in it. It is fitted across: rows are judged with the scalar of the documents in the other half. In: rows with
their teacher, and what heads write. Out: a reading of each head, and its scalars.
Shapes: N rows, B rows of the sample, H heads, E d_head, V vocabulary, two halves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from alens.evaluation.additions import Addition
from alens.evaluation.baselines import PartValues
from alens.evaluation.readings import Readings
from alens.evaluation.tile_figures import Affine
from alens.lens.maps import AffineMaps
from alens.machine.side_by_side import each
from alens.rows.held_out_rows import HeldOutPart
from alens.rows.teacher import TeacherBlock
from alens.statistics.groups import Groups

ITERATIONS = 8
TOLERANCE = 1e-3
"""Nats a row that another step of Newton's method would gain at most, where it ends."""

HALVES = 2


@dataclass(frozen=True, kw_only=True)
class ScaledWrite:
    """A reading of each head of some layers: softmax(log mean output + s addition). Without `fit` every s is 1: the write, or
    what an effect lens says that the head adds, as it is."""

    weights: Mapping[int, AffineMaps]
    """By layer, from z around its mean to logits; their biases are not read."""
    means: Mapping[int, torch.Tensor]
    """By layer, (H, E) E[z]."""
    log_mean_V: torch.Tensor
    groups: Groups
    """Whose members are judged with the scalar of others; of all the text."""
    scales: tuple[str, ...] = ()
    """The arrays that say what norms divide a row by; none where what is added is not divided."""
    written: bool = True
    """Whether a norm behind attention divides it too, as it does what a head writes."""
    scalars: dict[int, torch.Tensor] = field(default_factory=dict)
    """By layer, (2, H) the scalars for the rows of each half."""

    def columns(self, layers: object) -> tuple[str, ...]:
        return self.scales

    def reading(self, values: PartValues, layer: int, head: int) -> Readings:
        features_NE = self._features(values, layer, head)
        weight_EV = self.weights[layer].weight_HEV[head]
        return Readings.one(
            lambda rows: torch.addmm(self.log_mean_V, features_NE[rows], weight_EV),
            lambda rows: Affine(features_NE[rows], weight_EV, self.log_mean_V),
        )

    def fit(self, part: HeldOutPart) -> None:
        """Fit the scalars of all heads on some rows of the text that is judged on."""
        values, teacher = PartValues(part), part.teacher.block(slice(0, len(part)))
        half_B = self._halves(part)
        for layer, maps in self.weights.items():
            scalars_2H = self.scalars[layer] = torch.zeros(HALVES, maps.num_heads, device=half_B.device)
            values.site(layer)  # read once, before the threads

            def fit_head(head: int, layer: int = layer, scalars_2H: torch.Tensor = scalars_2H) -> None:
                written_BV = self._written(values, layer, head) @ self.weights[layer].weight_HEV[head]
                of_half_2 = fitted_scalars(written_BV, self.log_mean_V, teacher, half_B)
                scalars_2H[:, head] = of_half_2.flip(0)  # each half is judged with that of the other

            each(fit_head, maps.num_heads, half_B.device)

    def addition(self, values: PartValues, layer: int, head: int) -> Addition:
        """What the head adds: the scalar times what it writes."""
        features_NE = self._features(values, layer, head)
        return Addition(features_NF=features_NE, weight_FV=self.weights[layer].weight_HEV[head])

    def _features(self, values: PartValues, layer: int, head: int) -> torch.Tensor:
        """(N, E) what the head writes, as its map takes it, times the scalar of each row."""
        features_NE = self._written(values, layer, head)
        if layer in self.scalars:
            features_NE *= self.scalars[layer][self._halves(values.part), head][:, None]
        return features_NE

    def _written(self, values: PartValues, layer: int, head: int) -> torch.Tensor:
        """(N, E) z around its mean, divided by what norms divide it by."""
        written_NE: torch.Tensor = values.site(layer)[:, head].float() - self.means[layer][head]
        if not self.scales:
            return written_NE
        return written_NE / (values.write_scale(layer) if self.written else values.scales.final_N[:, None])

    def _halves(self, part: HeldOutPart) -> torch.Tensor:
        """(N,) 0 or 1: the half that a row belongs to; whole documents, or sequences. Of one sequence, every other row."""
        columns = part.columns.by_name
        number_N = self.groups.numbers(columns["rows/sequence"])
        if self.groups.count < HALVES:
            number_N = columns["rows/position"].astype(np.int64)
        return torch.from_numpy(number_N % HALVES).to(part.reader.device)


def fitted_scalars(
    written_BV: torch.Tensor, log_mean_V: torch.Tensor, teacher: TeacherBlock, half_B: torch.Tensor
) -> torch.Tensor:
    """(2,) for each half the s at which softmax(log mean output + s written) has the least KL on its rows.

    Newton's method from 0, kept between the largest s with a falling KL and the least with a rising one. A half without
    rows has the s of the other.
    """
    rows_2 = torch.bincount(half_B, minlength=HALVES)
    target_B = teacher.expect(written_BV)
    s_2, low_2, high_2 = (
        torch.full((HALVES,), x, device=half_B.device) for x in (0.0, -torch.inf, torch.inf)
    )
    for _ in range(ITERATIONS):
        probs_BV = torch.addcmul(log_mean_V, s_2[half_B][:, None], written_BV).softmax(-1)
        mean_B = torch.linalg.vecdot(probs_BV, written_BV)
        variance_B = torch.linalg.vecdot(probs_BV.mul_(written_BV), written_BV) - mean_B.square()
        slope_2, curve_2 = (
            torch.zeros_like(s_2).index_add_(0, half_B, x_B) / rows_2.clamp_min(1)
            for x_B in (mean_B - target_B, variance_B.clamp_min(0))
        )
        low_2 = torch.where(slope_2 < 0, s_2, low_2)
        high_2 = torch.where(slope_2 > 0, s_2, high_2)
        step_2 = -slope_2 / curve_2.clamp_min(torch.finfo(torch.float32).tiny)
        if float((slope_2 * step_2).abs().max()) < TOLERANCE:
            break
        next_2 = s_2 + step_2.clamp(-s_2.abs() - 1, s_2.abs() + 1)
        between_2 = (low_2.clamp_min(-1e6) + high_2.clamp_max(1e6)) / 2
        s_2 = torch.where((next_2 > low_2) & (next_2 < high_2), next_2, between_2)
    return torch.where(rows_2 > 0, s_2, s_2.flip(0))
