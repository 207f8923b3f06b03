"""`alens jacobians`: how the residual stream moves with z of each head, measured, from the command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alens.cli.config_file import config_option
from alens.cli.console import aside, show
from alens.cli.options import (
    HEADS,
    LAYERS,
    SettingsOptions,
    max_minutes_option,
    model_options,
    worker_option,
)
from alens.cli.value_types import PathName
from alens.cli.watch import starting, stopping, watching
from alens.effects.settings import JacobianRequest, JacobianSettings
from alens.pictures.numbers import duration, number_of

if TYPE_CHECKING:
    from alens.effects.measure_jacobians import JacobianSummary

JACOBIANS = SettingsOptions(JacobianSettings, layers=LAYERS, heads=HEADS)


@click.command("jacobians", epilog="Example: alens jacobians gpt2-cache --rows 4096 --layers 8-11")
@click.argument("store", type=PathName())
@JACOBIANS
@model_options
@worker_option
@max_minutes_option
@config_option
def command(**given: Any) -> None:
    """Measure how the residual stream moves with what each head computes, on some sequences of the cache STORE.

    The Jacobian of a head is that of the residual stream before the last norm by z of the head, in the mean over positions.
    Backward passes give it for all heads at once. It is written beside the cache, in STORE/jacobians, where `alens fit
    --lens jacobian` makes lenses of it. What the measurement will take is said before it begins. Run the same command
    again to resume, or ask for more rows, layers or heads: it adds what is missing.
    """

    with stopping(given["max_minutes"]) as should_stop, watching() as report:
        with starting():
            from alens.effects.measure_jacobians import (
                measure_jacobians,
            )  # seconds of imports, in which a signal may come, too
            from alens.job.worker import parse_worker

        request = JacobianRequest(
            store=Path(given["store"]),
            settings=JacobianSettings(**JACOBIANS.values(given)),
            model=given["model"],
            device=given["device"],
            worker=parse_worker(given["worker"]),
        )
        summary = measure_jacobians(request, report=report, should_stop=should_stop)
    with aside():
        _show(summary)


def _show(summary: "JacobianSummary") -> None:
    took = f", {summary.passes:,} backward passes in {duration(summary.seconds)}" if summary.passes else ""
    show(f"{summary.reach} Jacobians of {number_of(summary.heads, 'head')} on {summary.rows:,} rows{took}")
    if not summary.complete:
        show(f"not complete yet: other workers have not finished theirs in {summary.store}")
