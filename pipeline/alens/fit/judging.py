"""Held-out losses of a fit on its way, and figures at its end; over all processes.

In: designs with averaged parameters, or the maps that are kept. Out: the objective's own loss over some held-out rows,
and what the mean output has there; figures of every head and of the mean output over all of them.
Shapes: N rows, U losses of a layer, V vocabulary.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from alens.evaluation.figures import FigureSums, HeadFigures, add_together
from alens.fit.distributed import Processes
from alens.fit.fit_plan import FitPlan
from alens.fit.recipe import Recipe
from alens.job.interruption import InterruptedWorkError, droppable, leave_out
from alens.job.progress import Report, ShouldStop, counting, never, silent
from alens.lens.designs.design import Design, Ground, Readout
from alens.lens.maps import AffineMaps, LensMaps
from alens.rows.columns import RowReader
from alens.rows.held_out_rows import HeldOutRows, held_out_rows, num_held_out_rows
from alens.rows.teacher import Teacher

ROWS_ON_THE_WAY = 4096
"""Held-out rows for the losses before the end: enough to see where a head stands, and cheap."""


class Judging:
    """The held-out rows of a fit. What gives losses and figures is collective, and the same on all processes; it raises
    `InterruptedWorkError` on all of them where one is to stop."""

    def __init__(
        self,
        recipe: Recipe,
        plan: FitPlan,
        processes: Processes,
        grounds: Mapping[int, Ground],
        should_stop: ShouldStop = never,
    ) -> None:
        self.recipe, self.plan, self.processes, self.should_stop = recipe, plan, processes, should_stop
        ground = next(iter(grounds.values()))
        self.log_mean_output_V, self._width = ground.log_mean_output_V, ground.width

    def losses(
        self,
        designs: Mapping[int, Design],
        units: Mapping[int, Sequence[int]],
        report: Report = silent,
    ) -> dict[int, list[float]]:
        """By layer, the mean objective of these losses, on the way."""
        loss, device = self.recipe.objective.loss, self.processes.device
        sums = {
            layer: torch.zeros(len(of) + 1, dtype=torch.float64, device=device) for layer, of in units.items()
        }
        tell = self._counting(report, "evaluate", ROWS_ON_THE_WAY, times=len(designs))
        with self._droppable():
            for part, target in self._rows(ROWS_ON_THE_WAY):
                use = functools.partial(loss, teacher=target)
                for layer, design in designs.items():
                    if units[layer]:
                        loss_U = design(self.recipe.judge.z(part.columns, layer), use, list(units[layer]))
                        sums[layer][:-1] += loss_U.double() * len(part.columns)
                    sums[layer][-1] += len(part.columns)
                    tell(len(part.columns))
        totals = {layer: self.processes.sum(values) for layer, values in sums.items()}
        return {layer: (total[:-1] / total[-1]).tolist() for layer, total in totals.items()}

    def mean_output_loss(self, report: Report = silent) -> float:
        """The objective's mean loss of a reading that says the mean output, over the same rows as `losses`."""
        total = torch.zeros(2, dtype=torch.float64, device=self.processes.device)
        tell = self._counting(report, "mean output", ROWS_ON_THE_WAY)
        with self._droppable():
            for part, target in self._rows(ROWS_ON_THE_WAY):
                total[0] += self.mean_output_loss_of(target, len(part.columns)).double() * len(part.columns)
                total[1] += len(part.columns)
                tell(len(part.columns))
        loss, rows = self.processes.sum(total).tolist()
        return float(loss / rows)

    def mean_output_loss_of(self, teacher: Teacher, rows: int) -> torch.Tensor:
        """() float32: the same of these rows, of this process alone."""
        log_mean_V = self.log_mean_output_V
        features_UNF = log_mean_V.new_zeros(1, rows, self._width)
        weight_UFV = log_mean_V.new_zeros(1, self._width, len(log_mean_V))
        with torch.no_grad():
            return self.recipe.objective.loss(Readout(features_UNF, weight_UFV, log_mean_V[None]), teacher)[0]

    def figures(
        self, maps: Mapping[int, LensMaps], report: Report = silent
    ) -> tuple[dict[int, list[HeadFigures]], HeadFigures]:
        """Figures of every head over all held-out rows; and of the mean output there."""
        log_mean_V, device = self.log_mean_output_V, self.processes.device
        nothing = AffineMaps(weight_HEV=log_mean_V.new_zeros(1, 1, len(log_mean_V)), bias_HV=log_mean_V[None])
        mean_output = FigureSums(1, device)
        sums = {layer: FigureSums(of.num_heads, device) for layer, of in maps.items()}
        tell = self._counting(report, "judge", self.recipe.settings.eval_rows)
        with self._droppable():
            for part, target in self._rows(self.recipe.settings.eval_rows):
                none_NHE = torch.zeros(len(part.columns), 1, 1, device=device)
                heads = [
                    (sums[layer], self.recipe.judge.z(part.columns, layer), of) for layer, of in maps.items()
                ]
                readings = [(mean_output, none_NHE, nothing), *heads]
                add_together(readings, target, part.choice, part.next_ids_N, after_block=tell)
        for of_layer in (mean_output, *sums.values()):
            of_layer.reduce(self.processes.sum)
        return {layer: of.means() for layer, of in sums.items()}, mean_output.means()[0]

    @contextlib.contextmanager
    def _droppable(self) -> Iterator[None]:
        """Rows are judged inside; afterwards all processes agree whether that was dropped."""
        with droppable(self.should_stop) as work:
            yield
        if self.processes.any(work.left_out):
            raise InterruptedWorkError

    def _rows(self, num_rows: int) -> Iterator[tuple[HeldOutRows, Teacher]]:
        for part in held_out_rows(
            *self._which(num_rows), rank=self.processes.rank, world_size=self.processes.world_size
        ):
            yield part, self.recipe.target(part.columns, part.teacher)
            if leave_out():
                return

    def _counting(self, report: Report, stage: str, num_rows: int, times: int = 1) -> Callable[[int], None]:
        """Counts what this process has judged of `_rows`, each of them so many times."""
        total = times * num_held_out_rows(
            *self._which(num_rows), rank=self.processes.rank, world_size=self.processes.world_size
        )
        return counting(report, stage, "rows" if times == 1 else "rows by layer", total)

    def _which(self, num_rows: int) -> tuple[RowReader, Sequence[int], int]:
        most = min(num_rows, self.recipe.settings.eval_rows)
        return self.recipe.judge, self.plan.held_out_shards, most
