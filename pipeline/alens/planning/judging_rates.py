"""How fast a fit judges its lenses: held-out losses between steps, and figures of all held-out rows at its end.

In: a `FitProbe`, the module of some heads. Out: `JudgingRates`. The timed code is what a fit runs: the objective's loss
without gradients, and `ReadingSums` of the maps that would be saved.
"""

from dataclasses import dataclass

import torch

from alens.evaluation.readings import lens_readings
from alens.evaluation.sums import ReadingSums
from alens.fit.lens_module import LensModule
from alens.planning.budget import Took, timed
from alens.planning.fit_probe import FitProbe

ROWS = 256
"""Rows that are judged: a block of rows, as figures take it on a CPU."""


@dataclass(frozen=True, kw_only=True)
class JudgingRates:
    """Seconds of a row: of a thread that heads are given to, or of another device."""

    teacher_s: float
    """The model's distribution."""
    loss_s: float
    """The loss of each head."""
    figures_s: float
    """The figures of each head."""
    threads: int
    """Threads that heads are given to; 1 on another device."""

    def losses_s(self, heads: int, rows: int) -> float:
        """Seconds for held-out losses of this many heads, of all layers."""
        return rows * (self.teacher_s + heads / self.threads * self.loss_s)

    def all_figures_s(self, heads: int, rows: int) -> float:
        """Seconds for the figures of this many heads and of the mean output."""
        return rows * (self.teacher_s + (1 + heads) / self.threads * self.figures_s)


@torch.no_grad()
def judging_rates(probe: FitProbe, module: LensModule, heads: int) -> JudgingRates:
    """Time the judging of the lenses of `module`, which has this many heads."""
    z_NHE, reference, device = probe.z(ROWS, heads), probe.reference(ROWS), probe.device
    maps, sums = module.maps(probe.layer).folded(), ReadingSums(heads, device)
    _, teacher = timed(lambda: reference.teacher.block(slice(0, ROWS)), device)
    _, loss = timed(lambda: module({probe.layer: z_NHE}, reference.teacher), device)
    _, figures = timed(lambda: sums.add(lens_readings(maps, z_NHE), reference), device)
    teacher_s = _work_s(teacher)
    return JudgingRates(
        teacher_s=teacher.alone_s / ROWS,
        loss_s=max(_work_s(loss) - teacher_s, 0.0) / heads / ROWS,
        figures_s=max(_work_s(figures) - teacher_s, 0.0) / heads / ROWS,
        threads=max(1, loss.threads),
    )


def _work_s(took: Took) -> float:
    """Seconds of all CPUs, or of another device."""
    return took.cpu_s if took.threads else took.wall_s
