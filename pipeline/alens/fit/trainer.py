"""One fit in progress: its engine, its held-out losses, its best lenses so far, and its state on disk.

In: a `Recipe`, a `FitPlan`, processes. Out: steps taken on batches, held-out losses, checkpoints, and in the end
the maps of every layer. A loop gives it batches (`training_loop.py`); a sweep gives several trainers the same batches.
Shapes: L layers, U losses of a layer (one for each head, or one for the layer).
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
from alens.fit.evaluation_log import put_evaluation
from alens.fit.fit_plan import FitPlan
from alens.fit.judging import Judging
from alens.fit.lens_module import LensModule
from alens.fit.optimiser import learning_rate
from alens.fit.recipe import Recipe
from alens.fit.settings import CLOSED_FORM
from alens.job.progress import Progress, Report, ShouldStop, never, silent
from alens.lens.designs.design import Design
from alens.lens.directory import LensDirectory
from alens.lens.maps import AffineMaps, LensMaps, Shared

log = logging.getLogger("alens")

WINDOWS = "windows/"
"""The names of the checkpoint tensors of `DivergenceWatch` begin so."""

NOTES = 2
"""Format of the notes beside a checkpoint."""

TOO_HIGH = 0.5
"""When this share of the losses has diverged, the learning rate is at fault and not a lens."""

NAMED = 5
"""How many lenses a message names."""


class Trainer:
    """A fit on this process. Every method that evaluates, saves or restores is collective.

    When the fit is asked to stop during a step or an evaluation, that is dropped: it raises `InterruptedWorkError`, and
    the state is the one before it.
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
        begun_near = plan.start == CLOSED_FORM
        self.closed_forms = recipe.closed_forms(plan.train_shards, report) if begun_near else {}
        """By layer, what the lenses start at; empty where they start at the mean output."""
        self.grounds |= {layer: self.grounds[layer].paced(form) for layer, form in self.closed_forms.items()}
        if processes.first and not self.closed_forms and recipe.lacks_closed_form is not None:
            log.info("the fit starts at the mean output: %s", recipe.lacks_closed_form)
        report(Progress(stage="preparing the fit"))
        designs = {layer: self.start(layer) for layer in self.grounds}
        self.engine = Engine(
            LensModule(designs, recipe.objective),
            processes,
            zero=zero,
            batch_rows=self.settings.batch_rows,
            lr=self.lr,
            betas=plan.betas,
            config=deepspeed,
        )
        self.step_number = 0
        """Steps taken."""
        self.saved_step = 0
        """Steps taken in the newest checkpoint; a fit that has taken none needs no checkpoint."""
        self._evaluated_step = -1
        self.judging = Judging(recipe, plan, processes, self.grounds, should_stop)
        self.curves = Curves(recipe.heads, {layer: design.num_losses for layer, design in designs.items()})
        self.best_maps = BestMaps()
        self.divergence = DivergenceWatch(processes.world_size)
        self._evaluate_at = frozenset((*evaluation_steps(plan.steps), *((0,) if self.closed_forms else ())))

    def start(self, layer: int) -> Design:
        """A new design of a layer, at the start of the fit."""
        return self.recipe.design(self.grounds[layer], self.closed_forms.get(layer))

    def stream(self) -> BatchStream:
        """This process's batches; they end early when the fit is asked to stop while it waits for one."""
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
    def rows_seen(self) -> int:
        """Rows of the steps taken, over all processes."""
        return self.step_number * self.settings.batch_rows

    @property
    def advice(self) -> str:
        """What may help lenses that say nothing."""
        return f"A lower --lr than {self.lr:g}, or more rows, may do better"

    @property
    def finished(self) -> bool:
        """Whether all steps are taken, or no lens is trained any more."""
        return self.step_number >= self.plan.steps or not self.curves.trained

    def step(self, batch: TrainingBatch) -> torch.Tensor:
        """One step; gives the (L, U) losses of this rank's rows before it. Raises `RunError` when they diverge."""
        loss_LU = self.engine.step(
            batch.z_NHE,
            batch.teacher,
            learning_rate(self.lr, self.step_number),
            self.curves.trained_units() if self.curves.ended else None,
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

    def _diverge(self, keys: Sequence[Loss]) -> None:
        """Train the lenses of these losses no further.

        Raises `RunError` when so many have diverged that the learning rate must be at fault.
        """
        new = [key for key in keys if key not in self.curves.ended]
        for key in new:
            self.curves.end(key, self.step_number, DIVERGED)
        if not new:
            return
        diverged = [key for key, ending in self.curves.ended.items() if ending.why == DIVERGED]
        names = [name for key in diverged for name in self.curves.names(key)]
        lenses = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
        lower = f"take a lower --lr than {self.lr:g}, such as {self.lr / 10:g}"
        if len(diverged) >= TOO_HIGH * len(self.curves.keys):
            raise DivergedError(
                f"{self.directory}: at step {self.step_number} the loss of {lenses} has diverged (it is not finite, or far "
                f"above the mean output's and rising): {lower}, and a new LENSES"
            )
        if self.processes.first:
            log.warning(
                f"at step {self.step_number} the loss of {lenses} has diverged; trained no further: {lower}"
            )

    # Held-out rows

    @property
    def wants_evaluation(self) -> bool:
        """Whether held-out losses are due after the steps taken, also where a fit stopped during an evaluation."""
        return self.step_number in self._evaluate_at and self.step_number > self._evaluated_step

    def evaluate(self, seconds: float) -> None:
        """Compute held-out losses of the averaged lenses; `seconds` is the time spent in steps so far.

        The best maps of each lens are kept; lenses that have ended are trained no further. Raises `RunError` when the
        losses diverge.
        """
        designs, curves = self._averaged_designs(), self.curves
        losses = self._losses(designs)
        improved = curves.add(self.step_number, losses)
        self._evaluated_step = self.step_number
        for layer in losses:
            units = sorted(unit for improved_layer, unit in improved if improved_layer == layer)
            if units:
                self.best_maps.keep(layer, curves.places(layer, units), designs[layer].maps())
        endings = {key: curves.ending(key, self.settings.tolerance) for key in curves.trained}
        for key, why in endings.items():
            if why is not None and why != DIVERGED and self.settings.tolerance > 0:
                curves.end(key, self.step_number, why)
        if self.processes.first:
            put_evaluation(
                self.directory,
                curves,
                losses,
                step=self.step_number,
                rows=self.step_number * self.settings.batch_rows,
                seconds=seconds,
            )
        self._diverge([key for key, why in endings.items() if why == DIVERGED])

    def _losses(self, designs: Mapping[int, Design]) -> dict[int, list[float]]:
        """By layer, the current held-out losses; for a lens that has ended, its best one."""
        if self.curves.mean_output is None:
            self.curves.mean_output = self.judging.mean_output_loss(self.report)
        trained = self.curves.trained_units()
        measured = self.judging.losses(designs, trained, self.report)
        now = {
            (layer, unit): loss
            for layer, units in trained.items()
            for unit, loss in zip(units, measured[layer], strict=True)
        }
        losses: dict[int, list[float]] = {layer: [] for layer in trained}
        for key in self.curves.keys:
            best = self.curves.best(key)
            losses[key[0]].append(now.get(key, math.nan if best is None else best.loss))
        return losses

    def maps(self) -> dict[int, LensMaps]:
        """The best lenses of every layer, on the device. Lenses that never had a finite loss are as at the start."""
        all_maps = {}
        for layer in self.grounds:
            units = range(self.curves.num_losses[layer])
            never = [unit for unit in units if self.curves.best((layer, unit)) is None]
            best = self.best_maps.layers.get(layer)
            start = self.start(layer).maps() if never or best is None else None
            maps = start if best is None else best.to(self.processes.device)
            assert maps is not None, "it was kept, or starts"
            if start is not None and best is not None:
                places = self.curves.places(layer, never)
                maps.put(places, start.select(places))
            all_maps[layer] = maps
        return all_maps

    def _averaged_designs(self) -> dict[int, Design]:
        """Designs that hold the averaged parameters, whole."""
        averages = self.engine.averages()
        designs = {}
        for layer, ground in self.grounds.items():
            prefix = f"designs.{layer}."
            design = self.recipe.design(ground)
            design.load_state_dict(
                {n.removeprefix(prefix): value for n, value in averages.items() if n.startswith(prefix)},
                assign=True,
            )
            designs[layer] = design.requires_grad_(False)
        return designs

    # State

    def save(self) -> None:
        """Save a checkpoint after the steps taken, unless there is one. Raises `RunError` when the disk refuses."""
        if self.step_number == self.saved_step:
            return
        self.report(Progress(stage="saving a checkpoint"))
        windows = self.divergence.state(self.processes.sum)
        state = self.engine.state(copy=False) | {f"{WINDOWS}{name}": value for name, value in windows.items()}
        state |= self.best_maps.tensors()
        notes = {"format": NOTES, "curves": self.curves.to_json(), "form": self.best_maps.form}
        notes["layers"] = list(self.plan.layers)
        save, folder = checkpoints.save, self.directory.checkpoints
        self.processes.first_does(lambda: save(folder, self.step_number, state, notes))
        self.saved_step = self.step_number

    def restore(self) -> None:
        """Go on from the newest whole checkpoint, where there is one."""
        self.report(Progress(stage="looking for a checkpoint"))
        newest = checkpoints.newest(self.directory.checkpoints)
        if newest is not None and self._is_older(newest.notes):
            log.warning(
                "%s: its checkpoint is of an older alens, which kept others: beginning anew", self.directory
            )
            newest = None
        layers = list(self.plan.layers)
        stale = newest is not None and newest.notes.get("layers", layers) != layers
        if self.processes.any(stale):  # all have read it
            self.processes.first_does(self.drop_checkpoints)  # of the group before, which is finished
            newest = None
        if newest is None:
            self.engine.start()
            return
        state, notes = newest.state, newest.notes
        with checkpoints.taken_up(self.directory.checkpoints):
            self.engine.restore(
                {name: value for name, value in state.items() if not name.startswith((PREFIX, WINDOWS))},
                newest.step,
            )
            self.step_number = self.saved_step = newest.step
            self.curves.restore(notes["curves"])
            self._evaluated_step = max(
                (history[-1].step for history in self.curves.history.values()), default=-1
            )
            ground = next(iter(self.grounds.values()))
            shared = Shared(unembedding=ground.unembedding, ending=lambda: ground.ending)
            self.best_maps.restore(state, notes["form"], shared)
            windows = {k.removeprefix(WINDOWS): value for k, value in state.items() if k.startswith(WINDOWS)}
            self.divergence.restore(windows, self.processes.device)
        log.info("going on after step %d of %d", newest.step, self.plan.steps)

    def _is_older(self, notes: Mapping[str, Any]) -> bool:
        """Whether an older alens saved this checkpoint, with parameters that mean something else."""
        old_bias = self.settings.lens == "translator" and notes.get("form") == AffineMaps.form
        return notes.get("format") != NOTES or old_bias

    def drop_checkpoints(self) -> None:
        """Remove all checkpoints: the lenses are written, so there is nothing left to resume."""
        checkpoints.drop_all(self.directory.checkpoints)
