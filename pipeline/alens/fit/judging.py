"""Held-out losses during a fit, and figures at its end, over all processes.

In: designs with averaged parameters, or the best maps. Out: the objective's own loss over some held-out rows, of every
lens and of the mean output; figures of both over all held-out rows.
Shapes: N rows, U losses of a layer, V vocabulary.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice

import torch

from alens.evaluation.judge import judge
from alens.evaluation.readings import Readings, constant_reading, lens_readings
from alens.evaluation.sums import HeadFigures, ReadingSums
from alens.fit.distributed import Processes
from alens.fit.fit_plan import FitPlan
from alens.fit.recipe import Recipe
from alens.job.interruption import InterruptedWorkError, droppable
from alens.job.progress import Report, ShouldStop, counting, never, silent
from alens.lens.designs.design import Design, Ground
from alens.lens.designs.readout import Readout
from alens.lens.maps import LensMaps
from alens.machine.blocks import kept_rows
from alens.rows.held_out_rows import HeldOutPart, HeldOutRows
from alens.rows.teacher import Teacher, keeping_blocks

ROWS_DURING_FIT = 4096
"""Held-out rows for the losses during the fit: cheap, and enough to see how good a lens is."""


class Judging:
    """The held-out rows of a fit.

    Methods that give losses and figures are collective, and give the same on all processes; they raise
    `InterruptedWorkError` on all processes when one is asked to stop.
    """

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
        """By layer, the objective's mean loss, for these losses of each design."""

        def losses_of(part: HeldOutPart, target: Teacher) -> Iterator[torch.Tensor]:
            loss = functools.partial(self.recipe.objective.loss, teacher=target)
            for layer, design in designs.items():
                trained = list(units[layer])
                yield design(part.values(layer), loss, trained, losses=True) if trained else torch.zeros(0)

        sizes = [len(units[layer]) for layer in designs]
        return dict(zip(designs, self._means(losses_of, sizes, report, "evaluate"), strict=True))

    def mean_output_loss(self, report: Report = silent) -> float:
        """The objective's mean loss of a reading that says the mean output, over the same rows as `losses`."""

        def loss_of(part: HeldOutPart, target: Teacher) -> Iterator[torch.Tensor]:
            yield self.mean_output_loss_of(target, len(part))[None]

        return self._means(loss_of, [1], report, "mean output")[0][0]

    def mean_output_loss_of(self, teacher: Teacher, rows: int) -> torch.Tensor:
        """() float32: the same for the given rows, on this process alone."""
        log_mean_V = self.log_mean_output_V
        features_UNF = log_mean_V.new_zeros(1, rows, self._width)
        weight_UFV = log_mean_V.new_zeros(1, self._width, len(log_mean_V))
        with torch.no_grad():
            return self.recipe.objective.loss(Readout(features_UNF, weight_UFV, log_mean_V[None]), teacher)[0]

    def figures(
        self,
        maps: Mapping[int, LensMaps],
        report: Report = silent,
        places: Mapping[int, Sequence[int]] | None = None,
    ) -> tuple[dict[int, list[HeadFigures]], HeadFigures]:
        """The figures of every head over all held-out rows, by layer, and those of the mean output.

        `maps` have the heads at `places` of each layer; None for all.
        """
        folded = {layer: of_layer.folded() for layer, of_layer in maps.items()}

        def readings(part: HeldOutPart) -> list[Readings]:
            of_heads = [
                lens_readings(
                    of_layer,
                    part.values(layer) if places is None else part.values(layer)[:, list(places[layer])],
                )
                for layer, of_layer in folded.items()
            ]
            return [constant_reading(self.log_mean_output_V), *chain.from_iterable(of_heads)]

        num_heads = sum(of_layer.num_heads for of_layer in maps.values())
        sums = ReadingSums(1 + num_heads, self.processes.device)
        rows = self._held_out(self.recipe.eval_rows)
        with self._droppable():
            judge(rows, readings, sums, target=self.recipe.target, report=report)
        sums.reduce(self.processes.sum)
        mean_output, *figures = sums.means()
        left = iter(figures)
        return {
            layer: list(islice(left, of_layer.num_heads)) for layer, of_layer in maps.items()
        }, mean_output

    @property
    def evaluates_on_all_rows(self) -> bool:
        """Whether `losses` and `figures` are over the same rows."""
        return self.recipe.eval_rows <= ROWS_DURING_FIT

    @contextlib.contextmanager
    def _droppable(self) -> Iterator[None]:
        """Rows are judged within the block; after it, all processes agree whether that was dropped."""
        with droppable(self.should_stop) as work:
            yield
        if self.processes.any(work.left_out):
            raise InterruptedWorkError

    def _means(
        self,
        losses_of: Callable[[HeldOutPart, Teacher], Iterator[torch.Tensor]],
        sizes: Sequence[int],
        report: Report,
        stage: str,
    ) -> list[list[float]]:
        """The means over rows of what `losses_of` gives: one tensor for each of `sizes`."""
        rows = self._held_out(ROWS_DURING_FIT)
        unit = "rows" if len(sizes) == 1 else "rows by layer"
        tell = counting(report, stage, unit, rows.count * len(sizes))
        total = torch.zeros(sum(sizes) + 1, dtype=torch.float64, device=self.processes.device)
        sums = total[:-1].split(list(sizes))
        # The same parts whatever the number of layers: losses must not depend on which others are fitted.
        exact = self.recipe.judge.exact
        most = kept_rows(len(self.log_mean_output_V), self.processes.device) if exact else None
        with self._droppable():
            for part in rows.parts(most):
                target = self.recipe.target(part.columns, part.teacher)
                if len(sizes) > 1:  # each layer would make the teacher anew
                    target = keeping_blocks(target)
                for sum_U, loss_U in zip(sums, losses_of(part, target), strict=True):
                    sum_U.add_(loss_U.double() * len(part))
                    tell(len(part))
                total[-1] += len(part)
        total = self.processes.sum(total)
        return [mean_U.tolist() for mean_U in (total[:-1] / total[-1]).split(list(sizes))]

    def _held_out(self, num_rows: int) -> HeldOutRows:
        """This process's part of the first `num_rows` held-out rows."""
        return HeldOutRows(
            reader=self.recipe.judge,
            shards=self.plan.held_out_shards,
            num_rows=min(num_rows, self.recipe.eval_rows),
            rank=self.processes.rank,
            world_size=self.processes.world_size,
        )
