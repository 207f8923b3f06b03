"""`alens sweep`: several fits of one cache, those that read the same rows from one read.

In: a `SweepRequest`. Out: for each variant OUT/NAME, a lens directory as `alens fit` writes it, with its result beside;
and the table. A variant with a result is left alone, one that was stopped goes on from its checkpoint, also when the
others that share its read are further: they wait until it has reached them.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from alens.errors import RequestError, StoppedError
from alens.fit.batches import TrainingBatch
from alens.fit.distributed import join, leaving
from alens.fit.launch import check_alone
from alens.job.interruption import InterruptedWorkError
from alens.job.progress import Progress, Report, ShouldStop, never, silent
from alens.rows.columns import Columns
from alens.store import one_writer
from alens.store.cache_reader import open_cache
from alens.store.claim import Claim
from alens.sweep import sweep_json, table, table_files
from alens.sweep.member import Member
from alens.sweep.planned import Planned, resolve, share
from alens.sweep.request import SweepRequest
from alens.sweep.result import read_result
from alens.sweep.rounds import in_rounds
from alens.sweep.shared_rows import SharedRows

log = logging.getLogger("alens")


def run_sweep(request: SweepRequest, *, report: Report = silent, should_stop: ShouldStop = never) -> None:
    """Fit the variants of this worker, or go on with them.

    Raises `RequestError` for what cannot be done as asked, `DamageError` for a damaged cache, `RunError` for a full
    disk and the like, `StoppedError` when `should_stop` says so (checkpoints are saved).
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise RequestError("a sweep runs in one process: spread its variants over jobs with --worker I/N")
    if request.worker.count == 1:
        check_alone("sweep", "give each its part of the variants with --worker I/N")
    cache = open_cache(request.store, request.stage)
    asked = sweep_json.content(request, cache)
    sweep_json.check(request.out, asked)
    planned = resolve(request, cache)
    sweep_json.put(request.out, asked)
    processes = join(request.device, should_stop)
    course = _Course(request.out, share(planned, request.worker), report, should_stop)
    pending = [fit for fit in course.mine if fit.variant.name not in course.steps]
    with leaving(processes):
        for fits in in_rounds(pending, cache, processes.device, request.at_once):
            members: list[Member] = []
            with _claimed(fits, should_stop) as claims:
                try:
                    for fit, claim in zip(fits, claims, strict=True):
                        course.interrupt_if_asked()
                        members.append(Member(fit, claim, request, cache, processes, should_stop, report))
                    _together(members, course)
                except InterruptedWorkError:
                    raise course.stopped(members) from None


@contextlib.contextmanager
def _claimed(fits: list[Planned], should_stop: ShouldStop) -> Iterator[list[Claim]]:
    """Holds the directories of these variants, claimed all at once: after a killed worker, there is a single wait."""
    with contextlib.ExitStack() as stack:

        def claim(fit: Planned) -> Claim:
            return stack.enter_context(one_writer.claimed(fit.lenses, should_stop))

        with ThreadPoolExecutor(len(fits), "alens-claim") as pool:
            claims = list(pool.map(claim, fits))
        yield claims


def write_sweep_table(request: SweepRequest, against: str | None = None) -> table.SweepTable:
    """The table of all variants in OUT that are finished, written anew.

    Raises `RequestError` when OUT holds another sweep or none, or `against` is not a finished variant.
    """
    sweep_json.check_same(
        request.out,
        sweep_json.read(request.out),
        sweep_json.content(request, open_cache(request.store, request.stage)),
    )
    built = table.build(request.out, against=against)
    table_files.put(request.out, built)
    return built


class _Course:
    """How far this worker is, and whether it has to stop."""

    def __init__(self, out: Path, mine: list[Planned], report: Report, should_stop: ShouldStop) -> None:
        self.out, self.mine, self._report, self.should_stop = out, mine, report, should_stop
        self.steps = {fit.variant.name: fit.plan.steps for fit in mine if read_result(fit.lenses)}
        """Steps taken by each variant: all, for one that is finished."""

    def tell(self, members: list[Member]) -> None:
        self.steps |= {member.name: member.steps for member in members}
        running = sum(not member.done for member in members)
        self._report(
            Progress(
                stage="sweep",
                done=sum(self.steps.values()),
                total=sum(fit.plan.steps for fit in self.mine),
                unit="steps",
                note=f"{running} variants at once, {self._finished()} of {len(self.mine)} finished",
            )
        )

    def interrupt_if_asked(self) -> None:
        if self.should_stop():
            raise InterruptedWorkError

    def stopped(self, members: list[Member]) -> StoppedError:
        """Saves the members, and gives the error to raise."""
        if running := [member for member in members if not member.done]:
            log.info("stopping: saving %d variants", len(running))
        for member in running:
            member.save()
        return StoppedError(
            f"stopped with {self._finished()} of {len(self.mine)} variants finished (the others are saved in {self.out}); run again to go on"
        )

    def _finished(self) -> int:
        return sum(self.steps.get(fit.variant.name) == fit.plan.steps for fit in self.mine)


def _together(members: list[Member], course: _Course) -> None:
    """Takes the steps of all members from one read, until the last member is done."""
    running = [member for member in members if not member.done]
    course.tell(members)
    if not running:
        return
    shared = SharedRows([member.recipe for member in running], running[0].fit.shared_read, course.should_stop)
    first = min(member.start for member in running)
    last = max(member.fit.plan.steps for member in running)

    def make(step: int, columns: Columns) -> dict[str, TrainingBatch]:
        """The batches of a step, made in another thread one step ahead. Members that are further wait for the others."""
        wanted = [member for member in running if member.start <= step and not member.done]
        batches = shared.batches(columns, [member.recipe for member in wanted])
        return {member.name: batch for member, batch in zip(wanted, batches, strict=True)}

    with contextlib.closing(shared.stream.made(first, last, make)) as made:
        for step, (batches, waited_s) in enumerate(made, first):
            course.interrupt_if_asked()
            now = [member for member in running if not member.done and member.start <= step]
            for member in now:
                member.step(batches[member.name], waited_s / len(now))
            course.tell(members)
            if all(member.done for member in running):
                return
    course.interrupt_if_asked()  # the data end because the sweep has to stop
