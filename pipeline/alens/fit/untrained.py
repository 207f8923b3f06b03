"""A fit of a design that is whole at its start, such as `regression`: no step is taken, and no process group is made.

In: a `FitRequest`, its plan, the open cache. Out: the same lens directory as of a trained design, judged on held-out
rows.
"""

from dataclasses import dataclass
from functools import cached_property

from alens.errors import RequestError, StoppedError
from alens.fit.curves import Curves
from alens.fit.distributed import Processes, alone
from alens.fit.final_lenses import put_lenses
from alens.fit.fit_plan import FitPlan, as_begun, put_plan
from alens.fit.hold import held
from alens.fit.judging import Judging
from alens.fit.launch import this_launch
from alens.fit.recipe import Recipe
from alens.fit.settings import FitRequest
from alens.job.interruption import InterruptedWorkError
from alens.job.progress import Progress, Report, ShouldStop
from alens.lens.closed_form import closed_form
from alens.lens.designs.design import Ground
from alens.lens.directory import LensDirectory
from alens.lens.maps import LensMaps
from alens.lens.record import LensRecord
from alens.store.cache_reader import Cache


@dataclass(frozen=True, kw_only=True)
class WholeAtStart:
    """Lenses of every layer as their design starts: what `put_lenses` takes."""

    recipe: Recipe
    plan: FitPlan
    processes: Processes
    directory: LensDirectory
    grounds: dict[int, Ground]
    judging: Judging
    started: dict[int, LensMaps]
    rows_seen: int
    report: Report

    step_number = 0
    advice = "More rows, or a design that is trained, may do better"

    @cached_property
    def curves(self) -> Curves:
        """No loss has been looked at."""
        heads = self.recipe.heads
        return Curves(heads, {layer: len(numbers) for layer, numbers in heads.by_layer.items()})

    def maps(self) -> dict[int, LensMaps]:
        """By layer."""
        return self.started

    def drop_checkpoints(self) -> None:
        """There are none."""


def put_untrained(
    request: FitRequest, plan: FitPlan, cache: Cache, *, report: Report, should_stop: ShouldStop
) -> LensRecord:
    """Write the lenses that `request` asks for. Raises what `fit_lenses` raises; when stopped, nothing is kept."""
    if this_launch().world_size > 1:
        raise RequestError(
            f"{request.settings.lens} takes no steps, which processes could share: run it as one process"
        )
    directory, processes = LensDirectory(request.lenses), alone(request.device)
    with held(request.lenses, processes, should_stop) as hold:
        put_plan(directory, plan)
        directory.clear_stopped()
        recipe = Recipe(as_begun(request.settings, plan, cache), cache, processes.device)
        grounds = recipe.grounds(plan.train_shards, report)
        report(Progress(stage="regressing on z"))
        closed = closed_form(cache, recipe.heads, plan.train_shards)
        started = {}
        for layer, ground in grounds.items():
            design = recipe.design(ground)
            design.start_at(closed[layer])
            started[layer] = design.maps()
        lenses = WholeAtStart(
            recipe=recipe,
            plan=plan,
            processes=processes,
            directory=directory,
            grounds=grounds,
            judging=Judging(recipe, plan, processes, grounds, should_stop),
            started=started,
            rows_seen=closed[plan.layers[0]].num_rows,
            report=report,
        )
        hold.check()
        try:
            return put_lenses(lenses)
        except InterruptedWorkError:
            directory.mark_stopped(0, 0)
            raise StoppedError("stopped, and nothing was written: run the same command again") from None
