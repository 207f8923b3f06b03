"""`alens fit`: stage two from the command line; torchrun, deepspeed and srun start it through `-m alens`."""

import os
from typing import Any

import click

from alens.cli.config_file import config_option
from alens.cli.console import aside, show
from alens.cli.options import HEADS, LAYERS, STAGE, Flag, SettingsOptions, max_minutes_option
from alens.cli.value_types import PathName
from alens.cli.watch import speaks_for_all, starting, stopping, watching
from alens.fit.settings import FitRequest, FitSettings
from alens.lens.record import EFFECT, JACOBIAN
from alens.pictures.numbers import duration, fixed, number_of, percent, whole
from alens.store.stage_settings import StageSettings

NAMED = 5
"""How many lenses a line names that want so many rows."""

FIT = SettingsOptions(
    FitSettings,
    ranges=False,
    layers=LAYERS,
    heads=HEADS,
    lens=Flag(metavar="NAME"),
    lens_options=Flag("--lens-option", "lens_options"),
    objective=Flag(metavar="NAME"),
    objective_options=Flag("--objective-option", "objective_options"),
)
REQUEST = SettingsOptions(
    FitRequest,
    only=("zero", "deepspeed", "checkpoint_every", "layers_at_once", "device"),
    deepspeed=Flag(type=PathName(dir_okay=False), metavar="FILE.json"),
)


@click.command(
    "fit",
    epilog="Example: alens fit gpt2-cache layer-11 --layers 11; on 4 GPUs: torchrun --nproc-per-node 4 -m alens fit gpt2-cache all --zero 2",
)
@click.argument("store", type=PathName())
@click.argument("lenses", type=PathName())
@FIT
@REQUEST
@STAGE
@max_minutes_option
@config_option
def command(**given: Any) -> None:
    """Train lenses from the cache STORE and write them to the directory LENSES.

    No model is loaded. With --lens regression nothing is trained: the lenses come in closed form, in seconds. With --lens
    effect they are fitted to what the model loses without each head, which `alens effects` measures first; with --lens
    jacobian they say it to first order, from what `alens jacobians` measured. Run the same command again to resume from
    the newest checkpoint. One process runs alone, unless a launcher sets RANK, WORLD_SIZE and the like for several:
    torchrun, deepspeed and srun do.
    """

    # torch's own lines, with its stack, for each connection that is lost: alens says in one line what that means
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    settings = FitSettings(**FIT.values(given))
    with stopping(given["max_minutes"]) as should_stop, watching() as report:
        with starting():
            from alens.fit.training_loop import fit_lenses

        request = FitRequest(
            store=given["store"],
            lenses=given["lenses"],
            settings=settings,
            stage=StageSettings(**STAGE.values(given)),
            **REQUEST.values(given),
        )
        summary = fit_lenses(request, report=report, should_stop=should_stop)
    if speaks_for_all():
        record = summary.record
        heads = [head["kl"] for layer in record.held_out.values() for head in layer]
        with aside():
            if summary.steps_taken:
                show(
                    f"took {summary.steps_taken:,} steps of {settings.batch_rows:,} rows in {duration(summary.seconds)} "
                    f"({whole(summary.rows / summary.seconds)} rows/s; waited {percent(summary.waited_s / summary.seconds)} of it for data)"
                )
            if record.design == EFFECT:
                show(_effects(record, summary.lenses))
                return
            if record.design == JACOBIAN:
                show(_jacobians(record, summary.lenses))
                return
            if not heads:
                count = len(record.lenses)
                show(
                    f"{number_of(count, 'lens', 'lenses')} in {summary.lenses}, not judged: {given['store']} holds no rows; "
                    "`alens eval` judges them on a cache that does"
                )
                return
            show(
                f"{number_of(len(heads), 'lens', 'lenses')} in {summary.lenses}: held-out KL mean "
                f"{fixed(sum(heads) / len(heads), 4)}, worst {fixed(max(heads), 4)} nats"
                + (
                    ""
                    if record.mean_output_kl is None
                    else f" (mean output {fixed(record.mean_output_kl, 4)})"
                )
                + f"; {_endings(record)}"
            )


def _effects(record: Any, lenses: Any) -> str:
    """What effect lenses explain, beside what heads write."""
    figures = [head for layer in record.fit["effects"].values() for head in layer]
    lens, written = (
        sum(head[name]["share"] for head in figures) / len(figures) for name in ("explained", "written")
    )
    better = sum(head["explained"]["share"] > head["written"]["share"] for head in figures)
    return (
        f"{number_of(len(figures), 'effect lens', 'effect lenses')} in {lenses}: on {record.fit['held_out_rows']:,} rows of held-out documents they explain "
        f"{percent(lens)} of the effect of a head in the mean, and what the head writes {percent(written)}; {better} of "
        f"{len(figures)} explain more than that"
    )


def _jacobians(record: Any, lenses: Any) -> str:
    """What Jacobian lenses were made from, and how certain they are."""
    figures = [head for layer in record.fit["jacobians"].values() for head in layer]
    errors = [head["standard_error"] for head in figures if head["standard_error"] is not None]
    certain = "of too few sequences for a standard error"
    if errors:
        certain = (
            f"the standard error of a Jacobian is {percent(sum(errors) / len(errors))} of it in the mean"
        )
    return (
        f"{number_of(len(figures), 'Jacobian lens', 'Jacobian lenses')} in {lenses}, from "
        f"{record.fit['rows_seen']:,} rows, reach {record.fit['reach']}; {certain}"
    )


def _endings(record: Any) -> str:
    """How many lenses ended in which way, and what may help."""
    fit, lenses = record.fit, len(record.lenses)
    silent = {f"{layer}.{head}" for layer, head in record.lenses if record.says_nothing(layer, head)}
    endings = [f"{len(fit['converged'])} had converged"] if fit["most_steps"] else []
    if rose := fit.get("rose"):
        endings.append(f"{len(rose)} rose and are kept as they were at their best")
    if diverged := fit.get("diverged"):
        endings.append(f"{len(diverged)} diverged: take a lower --lr")
    if silent:
        endings.append(f"{len(silent)} say nothing")
    if not fit["most_steps"]:
        endings.append(f"no steps, judged on at most {fit['eval_rows']:,} held-out rows (--eval-rows)")
    if wanted := fit.get("rows_wanted"):
        endings.append(f"{len(wanted)} of {lenses} would gain from more rows or --epochs: {_wanted(wanted)}")
    return "; ".join(endings)


def _wanted(rows: dict[str, int]) -> str:
    """How many rows which lenses want, the fewest first."""
    by_rows: dict[int, list[str]] = {}
    for name, number in rows.items():
        by_rows.setdefault(number, []).append(name)
    parts = []
    for number, names in sorted(by_rows.items()):
        named = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        parts.append(f"about {whole(round(number, -3))} for {named}")
    return ", ".join(parts)
