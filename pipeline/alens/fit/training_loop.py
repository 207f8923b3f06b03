"""`alens fit`: cache -> lenses. Batches, steps, held-out losses, checkpoints, and the lens directory at the end.

In: a `FitRequest`. Out: a lens directory: one safetensors file a layer, `output.safetensors`, `lens.json`; beside them
`fit.json` (what was asked for) and `log.jsonl` (how it went). Every process of a fit runs this.
"""

import contextlib
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alens.errors import RequestError, RunError, StoppedError
from alens.fit import checkpoints, deepspeed_config
from alens.fit.distributed import Processes, join, leaving, lost_processes
from alens.fit.effect_fit import effect_plan, put_effect_lenses
from alens.fit.final_lenses import put_lenses
from alens.fit.fit_plan import FitPlan, as_begun, check_place, drop_plan, put_plan, resolve
from alens.fit.hold import Hold, held
from alens.fit.jacobian_fit import jacobian_plan, put_jacobian_lenses
from alens.fit.launch import check_alone, this_launch
from alens.fit.layer_groups import fit_groups, group_record, with_groups
from alens.fit.recipe import Recipe
from alens.fit.settings import FitRequest
from alens.fit.step_notes import StepNotes
from alens.fit.trainer import Trainer
from alens.fit.untrained import put_untrained
from alens.job.interruption import InterruptedWorkError
from alens.job.progress import Progress, Report, ShouldStop, never, silent
from alens.lens.directory import LensDirectory
from alens.lens.lenses import load_lenses
from alens.lens.record import EFFECT, JACOBIAN, LensRecord
from alens.result import Result
from alens.store.cache_reader import Cache, open_cache

log = logging.getLogger("alens")
WITHOUT_STEPS = {EFFECT: (effect_plan, put_effect_lenses), JACOBIAN: (jacobian_plan, put_jacobian_lenses)}
"""Lenses that say what a head adds, by design: what plans their fit, and what writes them."""


@dataclass(frozen=True, kw_only=True)
class FitSummary(Result):
    """The result of one run of `fit_lenses`."""

    lenses: Path
    record: LensRecord
    steps_taken: int
    rows: int
    """Rows seen in this run, over all processes."""
    seconds: float
    """Seconds in steps, without evaluations."""
    waited_s: float
    """How many of these seconds were waits for data."""

    def headline(self) -> str:
        """How long the fit took, and what the lenses are."""
        return f"{self.lenses}, {self.steps_taken:,} steps in {self.seconds:.1f} s: {self.record.headline()}"

    def records(self) -> list[dict[str, Any]]:
        """One record for each head: its held-out figures."""
        return self.record.records()

    def telling(self) -> list[dict[str, Any]]:
        """Those of the record, the lowest held-out KL first."""
        return self.record.telling()


def fit_lenses(
    request: FitRequest, *, report: Report = silent, should_stop: ShouldStop = never
) -> FitSummary:
    """Fit the lenses that `request` asks for, or go on with a fit that was begun; every process of a fit calls this.

    Raises `RequestError` for what cannot be done as asked, `DamageError` for a damaged cache, `RunError` for a full disk
    and the like, `StoppedError` when `should_stop` says so (a checkpoint is saved).
    """
    given = deepspeed_config.read(request.deepspeed) if request.deepspeed else {}
    zero = deepspeed_config.stage(given, request.zero)
    cache, directory = open_cache(request.store, request.stage), LensDirectory(request.lenses)
    make_plan, put_untrained_lenses = WITHOUT_STEPS.get(request.settings.lens, (resolve, put_untrained))
    plan = make_plan(request, cache)
    if directory.holds_lenses:
        return _finished(directory)
    check_place(directory)
    check_alone("fit")
    if not plan.steps:
        record = put_untrained_lenses(request, plan, cache, report=report, should_stop=should_stop)
        return _without_steps(request.lenses, record)
    with contextlib.ExitStack() as stack:
        with _marked(directory, plan.steps):
            processes = join(request.device, should_stop)
            stack.enter_context(leaving(processes))
            stack.enter_context(lost_processes(processes.world_size))
            hold = stack.enter_context(held(request.lenses, processes, should_stop))
        if processes.any(processes.first and directory.holds_lenses):
            return _finished(directory)  # the process that held it before has finished
        begun = processes.any(directory.holds_fit)
        plan = _planned(request, cache, plan, processes, zero)

        def fit(
            recipe: Recipe, plan: FitPlan, directory: LensDirectory, number: int, groups: int
        ) -> FitSummary:
            trainer = _trainer(
                request, recipe, plan, processes, directory, should_stop, report, given=given, begun=begun
            )
            return _Loop(request, trainer, hold, report, should_stop, number=number, groups=groups).run()

        recipe = Recipe(as_begun(request.settings, plan, cache), cache, processes.device)
        if plan.groups is None:
            return fit(recipe, plan, directory, 0, 1)
        return _together(directory.root, fit_groups(plan, recipe, processes, directory.root, fit, hold.check))


def _together(lenses: Path, groups: Sequence[FitSummary]) -> FitSummary:
    """The summary of a run that fitted these groups of layers."""
    return FitSummary(
        lenses=lenses,
        record=load_lenses(lenses).record,
        steps_taken=sum(group.steps_taken for group in groups),
        rows=sum(group.rows for group in groups),
        seconds=sum(group.seconds for group in groups),
        waited_s=sum(group.waited_s for group in groups),
    )


@contextlib.contextmanager
def _marked(directory: LensDirectory, steps: int) -> Iterator[None]:
    """A fit that is stopped while it waits for other processes has lost nothing: mark it, so that job scripts submit it
    again."""
    try:
        yield
    except StoppedError:
        if this_launch().rank == 0:
            directory.mark_stopped(checkpoints.last_step(directory.checkpoints), steps)
        raise


def _finished(directory: LensDirectory) -> FitSummary:
    """The summary of a fit that had finished before; what it left because it was killed right after that goes."""
    record = load_lenses(directory.root).record
    if this_launch().rank == 0:
        with contextlib.suppress(RunError):  # a directory that may only be read
            directory.clear_stopped()
        checkpoints.drop_all(directory.checkpoints)
        shutil.rmtree(directory.groups, ignore_errors=True)
    log.info("%s is finished: nothing to do", directory.root)
    return _without_steps(directory.root, record)


def _without_steps(lenses: Path, record: LensRecord) -> FitSummary:
    return FitSummary(lenses=lenses, record=record, steps_taken=0, rows=0, seconds=0.0, waited_s=0.0)


def _planned(request: FitRequest, cache: Cache, plan: FitPlan, processes: Processes, zero: int) -> FitPlan:
    """The plan of the fit: written where there is none yet, with the groups of layers that are fitted together."""
    directory = LensDirectory(request.lenses)
    if not processes.any(processes.first and directory.holds_fit):
        recipe = Recipe(request.settings, cache, processes.device)
        plan = with_groups(plan, recipe, processes, request.layers_at_once, zero=zero)

    def put() -> None:
        put_plan(directory, plan)
        directory.clear_stopped()

    processes.first_does(put)
    return resolve(request, cache)  # as rank 0 wrote it: an unsealed cache may have grown since


def _trainer(
    request: FitRequest,
    recipe: Recipe,
    plan: FitPlan,
    processes: Processes,
    directory: LensDirectory,
    should_stop: ShouldStop,
    report: Report,
    *,
    given: Mapping[str, Any],
    begun: bool,
) -> Trainer:
    """A trainer that goes on from the newest checkpoint, where there is one; `begun` says whether the fit was begun before
    this run."""
    try:
        trainer = Trainer(
            recipe,
            plan,
            processes,
            directory,
            zero=deepspeed_config.stage(given, request.zero),
            deepspeed=given,
            should_stop=should_stop,
            report=report,
        )
    except RequestError:  # an option whose error shows only here: nothing was begun
        if processes.first and not begun:
            drop_plan(directory)
        raise
    trainer.restore()
    return trainer


class _Loop:
    """Takes steps until the fit is finished or is asked to stop."""

    def __init__(
        self,
        request: FitRequest,
        trainer: Trainer,
        hold: Hold,
        report: Report,
        should_stop: ShouldStop,
        *,
        number: int,
        groups: int,
    ) -> None:
        """This is group `number` of the fit, counted from 0."""
        self.request, self.trainer, self.hold = request, trainer, hold
        self.report, self.should_stop = report, should_stop
        self.groups, self.before = groups, number * trainer.plan.steps
        self.total = groups * trainer.plan.steps
        self.start, self.notes = trainer.step_number, StepNotes(trainer)
        self.seconds = self.waited_s = 0.0
        self._since = time.monotonic()

    def run(self) -> FitSummary:
        trainer, request = self.trainer, self.request
        try:
            self._steps()
            self.hold.check()
            record = put_lenses(trainer, None if self.groups == 1 else group_record)
        except InterruptedWorkError:
            raise self._stopped() from None
        steps = trainer.step_number - self.start
        return FitSummary(
            lenses=request.lenses,
            record=record,
            steps_taken=steps,
            rows=steps * request.settings.batch_rows,
            seconds=self.seconds,
            waited_s=self.waited_s,
        )

    def _steps(self) -> None:
        """Raises `InterruptedWorkError` when the fit is asked to stop."""
        trainer = self.trainer
        if trainer.wants_evaluation:  # the run before was stopped during it
            trainer.evaluate(self.seconds)
        self._since = time.monotonic()
        self.report(Progress(stage="fit", done=self.before + self.start, total=self.total, unit="steps"))
        with contextlib.closing(trainer.stream().batches(self.start, trainer.plan.steps)) as batches:
            while not trainer.finished:
                batch = next(batches, None)
                if trainer.processes.any(batch is None or self.should_stop() or self.hold.is_lost):
                    raise InterruptedWorkError
                assert batch is not None, "it ends early only when asked to stop"
                loss_LU = trainer.step(batch)
                self.waited_s += batch.waited_s
                self._tell(loss_LU)
                self._between_steps()
        self._pause()

    def _between_steps(self) -> None:
        """Evaluate and save where that is due. Their time is not counted as time in steps."""
        trainer = self.trainer
        save = trainer.step_number % self.request.checkpoint_every == 0
        if not (trainer.wants_evaluation or save):
            return
        self._pause()
        if trainer.wants_evaluation:
            trainer.evaluate(self.seconds)
        if save and not trainer.finished:
            self.hold.check()
            trainer.save()
        self._since = time.monotonic()

    def _pause(self) -> None:
        if self.trainer.processes.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds += time.monotonic() - self._since

    def _stopped(self) -> StoppedError:
        """Save a checkpoint, and give the error that says so."""
        trainer, directory = self.trainer, self.trainer.directory
        self.hold.check()
        if trainer.step_number > trainer.saved_step and trainer.processes.first:
            log.info("stopping: saving step %d of %d", trainer.step_number, trainer.plan.steps)
        trainer.save()
        step = self.before + trainer.step_number
        trainer.processes.first_does(lambda: directory.mark_stopped(step, self.total))
        where = f"saved in {directory}" if step else "nothing was learnt yet"
        return StoppedError(f"stopped after step {step:,} of {self.total:,} ({where}); run again to go on")

    def _tell(self, loss_LU: torch.Tensor) -> None:
        seconds = self.seconds + time.monotonic() - self._since
        self.report(
            Progress(
                stage="fit",
                done=self.before + self.trainer.step_number,
                total=self.total,
                unit="steps",
                note=self.notes.note(loss_LU, seconds),
            )
        )
