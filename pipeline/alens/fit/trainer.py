"""One fit in progress: its engine, how its lenses do on held-out rows, and which of them are trained no further.

In: a `Recipe`, a `FitPlan`, processes. Out: steps taken on batches, held-out losses, checkpoints, and in the end
the maps of every layer. A loop gives it batches (`training_loop.py`), or one loop several trainers the same batches (a sweep).
Shapes: L layers, H heads, U losses of a layer (one a head, or one a layer).
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from alens.fit import checkpoints
from alens.fit.batches import BatchStream, TrainingBatch
from alens.fit.best_maps import PREFIX, BestMaps
from alens.fit.convergence import DIVERGED, evaluation_steps
from alens.fit.curves import Curves, Loss
from alens.fit.distributed import Processes
from alens.fit.divergence_watch import WINDOW, DivergedError, DivergenceWatch
from alens.fit.engine import Engine
from alens.fit.evaluation_log import put_line
from alens.fit.fit_plan import FitPlan
from alens.fit.judging import Judging
from alens.fit.lens_module import LensModule
from alens.fit.optimiser import learning_rate
from alens.fit.recipe import Recipe
from alens.job.progress import Progress, Report, ShouldStop, never, silent
from alens.lens.designs.design import Design
from alens.lens.directory import LensDirectory
from alens.lens.maps import LensMaps

log = logging.getLogger("alens")

WINDOWS = "windows/"
"""Begins the names of the checkpoint tensors that `DivergenceWatch` keeps."""

NOTES = 2
"""Form of the notes beside a checkpoint."""

TOO_HIGH = 0.5
"""Share of the losses that diverge, from which on the rate is at fault and not a lens."""

NAMED = 5
"""How many lenses a message names."""


class Trainer:
    """A fit on this process. Every method that evaluates, saves or restores is collective.

    Asked to stop, a step or an evaluation is dropped in the midst of it: it raises `InterruptedWorkError`, and the state
    is the one of before.
    """

    def __init__(
        self,
        recipe: Recipe,
        plan: FitPlan,
        processes: Processes,
        directory: LensDirectory,
        *,
        zero: int = 0,
        deepspeed: Mapping[str, Any] | None = None,
        should_stop: ShouldStop = never,
        report: Report = silent,
    ) -> None:
        self.recipe, self.plan, self.processes, self.directory = recipe, plan, processes, directory
        self.settings, self.lr = recipe.settings, recipe.lr
        self.should_stop, self.report = should_stop, report
        self.grounds = recipe.grounds(plan.train_shards, report)
        report(Progress(stage="preparing the fit"))
        designs = {layer: recipe.design(ground) for layer, ground in self.grounds.items()}
        self.num_losses = {layer: design.num_losses for layer, design in designs.items()}
        self.engine = Engine(
            LensModule(designs, recipe.objective),
            processes,
            zero=zero,
            batch_rows=self.settings.batch_rows,
            lr=self.lr,
            config=deepspeed,
        )
        self.step_number = 0
        """Steps taken."""
        self.saved_step = 0
        """Steps taken in the newest checkpoint; a fit that has taken none needs none."""
        self._evaluated_step = 0
        self.judging = Judging(recipe, plan, processes, self.grounds, should_stop)
        self.curves = Curves()
        self.kept = BestMaps()
        self.divergence = DivergenceWatch(processes.world_size)
        self._evaluate_at = frozenset(evaluation_steps(plan.steps))

    def stream(self) -> BatchStream:
        """This process's batches; they end early when it is to stop while it waits for one."""
        return BatchStream(
            reader=self.recipe.reader,
            shards=self.plan.train_shards,
            batch_rows=self.settings.batch_rows,
            seed=self.settings.seed,
            rank=self.processes.rank,
            world_size=self.processes.world_size,
            target=self.recipe.target,
            should_stop=self.should_stop,
        )

    # Steps

    @property
    def finished(self) -> bool:
        """Whether all steps are taken, or no lens is trained any more."""
        return self.step_number >= self.plan.steps or len(self.curves.ended) == sum(self.num_losses.values())

    def step(self, batch: TrainingBatch) -> torch.Tensor:
        """One step; gives the (L, U) losses of this rank's rows before it. Raises `RunError` when they diverge."""
        loss_LU = self.engine.step(
            batch.z_NHE,
            batch.teacher,
            learning_rate(self.lr, self.step_number),
            self._active(),
            self.should_stop,
        )
        rows = len(next(iter(batch.z_NHE.values())))
        self.divergence.add(
            loss_LU, lambda: self.judging.mean_output_loss_of(batch.teacher, rows), self.processes.sum
        )
        self.step_number += 1
        if self.step_number % WINDOW == 0:
            places = self.divergence.over(self.processes.sum).nonzero().tolist()
            self._diverge([(self.plan.layers[place], unit) for place, unit in places])
        return loss_LU

    def _active(self) -> dict[int, list[int]] | None:
        if not self.curves.ended:
            return None
        return {
            layer: [unit for unit in range(count) if (layer, unit) not in self.curves.ended]
            for layer, count in self.num_losses.items()
        }

    def _diverge(self, keys: Sequence[Loss]) -> None:
        """These are trained no further. Raises `RunError` when so many have diverged that it is the rate."""
        new = [key for key in keys if key not in self.curves.ended]
        for key in new:
            self.curves.end(key, self.step_number, DIVERGED)
        if not new:
            return
        gone = [key for key, ending in self.curves.ended.items() if ending.why == DIVERGED]
        names = [name for key in gone for name in self.names(*key)]
        said = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
        lower = f"take a lower --lr than {self.lr:g}, such as {self.lr / 10:g}"
        if len(gone) >= TOO_HIGH * sum(self.num_losses.values()):
            raise DivergedError(
                f"{self.directory}: at step {self.step_number} the loss of {said} has diverged (it is not finite, or far "
                f"above the mean output's and rising): {lower}, and a new LENSES"
            )
        if self.processes.first:
            log.warning(
                f"at step {self.step_number} the loss of {said} has diverged; trained no further: {lower}"
            )

    # Held-out rows

    @property
    def wants_evaluation(self) -> bool:
        """Whether held-out losses are due after the steps taken; also where a fit stopped in the midst of that."""
        return self.step_number in self._evaluate_at and self.step_number > self._evaluated_step

    def evaluate(self, seconds: float) -> None:
        """Held-out losses of the averaged lenses. The best of each lens is kept; those that have ended are trained
        no further. Raises `RunError` when the losses diverge."""
        designs = self._designs()
        losses = self._losses(designs)
        improved = self.curves.add(self.step_number, losses)
        self._evaluated_step = self.step_number
        for layer in losses:
            if units := sorted(unit for of, unit in improved if of == layer):
                maps = designs[layer].maps()
                self.kept.keep(layer, self._heads_of(layer, units, maps), maps)
        endings = {key: self._ending(*key) for key in self._trained()}
        for key, why in endings.items():
            if why is not None and why != DIVERGED and self.settings.tolerance > 0:
                self.curves.end(key, self.step_number, why)
        if self.processes.first:
            put_line(self, losses, seconds)
        self._diverge([key for key, why in endings.items() if why == DIVERGED])

    def _losses(self, designs: Mapping[int, Design]) -> dict[int, list[float]]:
        """By layer, held-out losses; the best that it had of one that has ended."""
        if self.curves.mean_output is None:
            self.curves.mean_output = self.judging.mean_output_loss(self.report)
        trained: dict[int, list[int]] = {layer: [] for layer in designs}
        for layer, unit in self._trained():
            trained[layer].append(unit)
        losses = self.judging.losses(designs, trained, self.report)
        found = {}
        for layer, units in trained.items():
            now = dict(zip(units, losses[layer], strict=True))
            best = {unit: self.curves.best((layer, unit)) for unit in range(self.num_losses[layer])}
            found[layer] = [now.get(unit, math.nan if of is None else of.kl) for unit, of in best.items()]
        return found

    def _trained(self) -> list[Loss]:
        """The losses that are still trained."""
        return [
            (layer, unit)
            for layer, count in self.num_losses.items()
            for unit in range(count)
            if (layer, unit) not in self.curves.ended
        ]

    def _ending(self, layer: int, unit: int) -> str | None:
        return self.curves.ending((layer, unit), self.settings.tolerance)

    def maps(self) -> dict[int, LensMaps]:
        """The best lenses of every layer, on the device; the start of those that never had a finite loss."""
        found = {}
        for layer, ground in self.grounds.items():
            units = range(self.num_losses[layer])
            never = [unit for unit in units if self.curves.best((layer, unit)) is None]
            kept = self.kept.layers.get(layer)
            start = self.recipe.design(ground).maps() if never or kept is None else None
            maps = start if kept is None else kept.to(self.processes.device)
            assert maps is not None, "it was kept, or starts"
            if start is not None and kept is not None:
                heads = self._heads_of(layer, never, start)
                maps.put(heads, start.select(heads))
            found[layer] = maps
        return found

    def names(self, layer: int, unit: int) -> list[str]:
        """What lenses with this loss are called: `18.6` is head 6 of layer 18."""
        heads = self.recipe.heads
        return [f"{layer}.{head}" for head in ((heads[unit],) if self.alone(layer) else heads)]

    def alone(self, layer: int) -> bool:
        """Whether each head of the layer has a loss of its own."""
        return self.num_losses[layer] == len(self.recipe.heads)

    def ended(self, why: str) -> dict[str, int]:
        """By name of a lens, the step after which it ended for that reason."""
        return {
            name: ending.step
            for key, ending in sorted(self.curves.ended.items())
            if ending.why == why
            for name in self.names(*key)
        }

    @property
    def best_steps(self) -> dict[str, int]:
        """By name of a lens, the step of the evaluation that is kept."""
        return {
            name: found.step
            for key in sorted(self.curves.history)
            if (found := self.curves.best(key)) is not None
            for name in self.names(*key)
        }

    def _heads_of(self, layer: int, units: list[int], maps: LensMaps) -> list[int]:
        """The heads that these losses train: one each, or all where heads share a loss."""
        return units if self.alone(layer) else list(range(maps.num_heads)) if units else []

    def _designs(self) -> dict[int, Design]:
        """Designs that hold the averaged parameters, whole."""
        averages = self.engine.averages()
        found = {}
        for layer, ground in self.grounds.items():
            prefix = f"designs.{layer}."
            design = self.recipe.design(ground)
            design.load_state_dict(
                {n.removeprefix(prefix): value for n, value in averages.items() if n.startswith(prefix)},
                assign=True,
            )
            found[layer] = design.requires_grad_(False)
        return found

    # State

    def save(self) -> None:
        """A checkpoint after the steps taken, unless there is one. Raises `RunError` when the disk refuses."""
        if self.step_number == self.saved_step:
            return
        self.report(Progress(stage="saving a checkpoint"))
        state = self.engine.state() | {
            f"{WINDOWS}{n}": value for n, value in self.divergence.state(self.processes.sum).items()
        }
        notes = {"format": NOTES, "curves": self.curves.to_json(), "form": self.kept.form}
        save, folder = checkpoints.save, self.directory.checkpoints
        self.processes.first_does(lambda: save(folder, self.step_number, state | self.kept.tensors(), notes))
        self.saved_step = self.step_number

    def restore(self) -> None:
        """Go on from the newest whole checkpoint, where there is one."""
        self.report(Progress(stage="looking for a checkpoint"))
        found = checkpoints.newest(self.directory.checkpoints)
        if found is not None and found.notes.get("format") != NOTES:
            log.warning(
                "%s: its checkpoint is of an older alens, which kept others: beginning anew", self.directory
            )
            found = None
        if found is None:
            self.engine.start()
            return
        with checkpoints.taken_up(self.directory.checkpoints):
            self.engine.restore(
                {k: v for k, v in found.state.items() if not k.startswith((PREFIX, WINDOWS))}, found.step
            )
            self.step_number = self.saved_step = found.step
            self.curves = Curves.from_json(found.notes["curves"])
            self._evaluated_step = max((of[-1].step for of in self.curves.history.values()), default=0)
            self.kept.restore(found.state, found.notes["form"], lambda: self.recipe.reader.unembedding)
            windows = {k.removeprefix(WINDOWS): v for k, v in found.state.items() if k.startswith(WINDOWS)}
            self.divergence.restore(windows, self.processes.device)
        log.info("going on after step %d of %d", found.step, self.plan.steps)

    def drop_checkpoints(self) -> None:
        """The lenses are written: nothing is to be taken up again."""
        checkpoints.drop_all(self.directory.checkpoints)
