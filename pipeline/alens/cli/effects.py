"""`alens effects`: what the model loses without each head, measured, from the command line."""

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
from alens.effects.settings import EffectRequest, EffectSettings
from alens.pictures.numbers import duration, number_of

if TYPE_CHECKING:
    from alens.effects.measure_effects import EffectSummary

EFFECTS = SettingsOptions(EffectSettings, layers=LAYERS, heads=HEADS)


@click.command("effects", epilog="Example: alens effects gpt2-cache --rows 4096 --layers 8-11")
@click.argument("store", type=PathName())
@EFFECTS
@model_options
@worker_option
@max_minutes_option
@config_option
def command(**given: Any) -> None:
    """Measure what the model loses without each head, on some rows of the cache STORE.

    The effect of a head on a row is the change of the final normed residual when z of the head is replaced by its mean
    over the cache at every position, full minus ablated: a head that raises a token has a positive effect on it. It is
    written beside the cache, in STORE/effects, where `alens fit` and `alens eval` take it. What the measurement will
    take is said before it begins. Run the same command again to resume, or ask for more rows, layers or heads: it adds
    what is missing.
    """

    with stopping(given["max_minutes"]) as should_stop, watching() as report:
        with starting():
            from alens.effects.measure_effects import (
                measure_effects,
            )  # seconds of imports, in which a signal may come, too
            from alens.job.worker import parse_worker

        request = EffectRequest(
            store=Path(given["store"]),
            settings=EffectSettings(**EFFECTS.values(given)),
            model=given["model"],
            device=given["device"],
            worker=parse_worker(given["worker"]),
        )
        summary = measure_effects(request, report=report, should_stop=should_stop)
    with aside():
        _show(summary)


def _show(summary: "EffectSummary") -> None:
    took = f" in {duration(summary.seconds)}" if summary.effects_measured else ""
    show(
        f"measured {summary.effects_measured:,} effects{took}, of {number_of(summary.heads, 'head')} on {summary.rows:,} rows"
    )
    if not summary.complete:
        show(f"not complete yet: other workers have not finished theirs in {summary.store}")
