"""One variant while a sweep runs: its trainer, the time it has taken, and how it ends.

In: a planned variant, and batches. Out: its lens directory, `clock.json` beside the checkpoints, and in the end its
result. What was written before stays: lenses without a result (of a run that was killed in between) are judged only.
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator

from alens.errors import DamageError
from alens.fit.batches import TrainingBatch
from alens.fit.distributed import Processes
from alens.fit.divergence_watch import DivergedError
from alens.fit.final_lenses import put_lenses
from alens.fit.fit_plan import put_plan
from alens.fit.recipe import Recipe
from alens.fit.trainer import Trainer
from alens.job.progress import Report, ShouldStop, never, silent
from alens.lens.directory import LensDirectory
from alens.lens.lenses import load_lenses
from alens.store import document, durable, one_writer, typed
from alens.store.cache_reader import Cache
from alens.store.claim import Claim
from alens.store.durable import write_errors
from alens.sweep.planned import Planned
from alens.sweep.request import SweepRequest
from alens.sweep.result import VariantResult, judge_variant, put_result

log = logging.getLogger("alens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Clock:
    """The seconds that a variant took until its newest checkpoint."""

    __pydantic_config__ = typed.STRICT

    seconds: typed.Amount


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Puts the variant's name in front of the lines of the log."""

    def prefix(record: logging.LogRecord) -> bool:
        record.msg = f"{name}: {record.msg}"
        return True

    log.addFilter(prefix)
    try:
        yield
    finally:
        log.removeFilter(prefix)


class Member:
    """A variant of a round. Asked to stop, it drops the step it is in and raises `InterruptedWorkError`."""

    def __init__(
        self,
        fit: Planned,
        claim: Claim,
        request: SweepRequest,
        cache: Cache,
        processes: Processes,
        should_stop: ShouldStop = never,
        report: Report = silent,
    ) -> None:
        self._report = report
        self.fit, self._claim, self.should_stop = fit, claim, should_stop
        self.base, self.checkpoint_every = request.grid.base, request.checkpoint_every
        self.recipe = Recipe(fit.variant.settings, cache, processes.device)
        self.directory = LensDirectory(fit.lenses)
        put_plan(self.directory, fit.plan)
        self.seconds, self.start, self.done = self._clock(), 0, False
        self._trainer: Trainer | None = None
        if not self.directory.holds_lenses:
            self._trainer = Trainer(
                self.recipe, fit.plan, processes, self.directory, should_stop=should_stop, report=report
            )
            with _named(fit.variant.name):
                self._trainer.restore()
            self.start = self._trainer.step_number
            self._evaluate()
        if not self.done and (self._trainer is None or self._trainer.finished):
            self._finish()

    @property
    def name(self) -> str:
        """The name of the variant."""
        return self.fit.variant.name

    @property
    def steps(self) -> int:
        """The steps taken: all, for a variant that is done."""
        return self._trainer.step_number if self._trainer else self.fit.plan.steps

    def step(self, batch: TrainingBatch, waited_s: float) -> None:
        """Take a step, then save or finish where that is due. Losses that diverge end this variant, not the sweep."""
        trainer, since = self._trainer, time.monotonic()
        assert trainer is not None
        with self._failing():
            trainer.step(batch)
            self.seconds += time.monotonic() - since + waited_s
        self._evaluate()
        if self.done:
            return
        if trainer.finished:
            self._finish()
        elif trainer.step_number % self.checkpoint_every == 0:
            self.save()

    def _evaluate(self) -> None:
        """Compute held-out losses where they are due."""
        with self._failing():
            if self._trainer and self._trainer.wants_evaluation:
                self._trainer.evaluate(self.seconds)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Ends this variant if its losses diverge within the block."""
        try:
            with _named(self.name):
                yield
        except DivergedError as error:
            self._fail(str(error))

    def save(self) -> None:
        """Save a checkpoint where steps were taken since the last. Raises `RunError` where another process has the variant."""
        if self._trainer and self._trainer.step_number > self._trainer.saved_step:
            one_writer.check(self._claim, self.fit.lenses)
            self._trainer.save()
            self._put_clock()

    def _put_clock(self) -> None:
        with write_errors(self.fit.lenses):
            durable.put(self.directory.clock, document.encode({"seconds": self.seconds}))

    def _clock(self) -> float:
        path = self.directory.clock
        try:
            body = document.decode(document.content(path), str(path))
            return typed.parse(_Clock, body, str(path), "seconds are counted from here").seconds
        except FileNotFoundError:
            return 0.0
        except DamageError:
            log.warning("%s was altered: seconds are counted from here", path)
            return 0.0

    def _finish(self) -> None:
        if self._trainer:
            one_writer.check(self._claim, self.fit.lenses)
            self._put_clock()
            put_lenses(self._trainer)
        cache, shards = self.recipe.cache, self.fit.plan.held_out_shards
        result = judge_variant(
            load_lenses(self.fit.lenses),
            cache,
            self.base,
            shards,
            self.recipe.device,
            self.should_stop,
            self._report,
        )
        put_result(self.fit.lenses, dataclasses.replace(result, seconds=self.seconds))
        log.info(
            "%s is finished after %d steps: held-out KL mean %.4f",
            self.name,
            result.steps,
            result.kl_H.mean(),
        )
        self._drop()

    def _fail(self, why: str) -> None:
        log.warning("%s has failed: %s", self.name, why)
        put_result(self.fit.lenses, VariantResult(failed=why, seconds=self.seconds))
        self._drop()

    def _drop(self) -> None:
        """Free the memory of the trainer."""
        self._trainer, self.done = None, True
