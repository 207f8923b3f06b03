"""`alens sweep`: many fits of one cache, and a table of how they do."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alens.cli.console import aside, show, show_result
from alens.cli.options import STAGE, SettingsOptions, json_option, max_minutes_option, worker_option
from alens.cli.value_types import PathName
from alens.cli.watch import starting, stopping, watching
from alens.store.stage_settings import StageSettings
from alens.sweep.request import SweepRequest

if TYPE_CHECKING:
    from alens.sweep.table import SweepTable

SWEEP = SettingsOptions(SweepRequest, only=("at_once", "checkpoint_every", "device"))

STACKS = ((0,), (1, 2, 3), (4, 5, 6), (7, 8), (9, 10))
"""Columns that stand one above the other where the terminal is too narrow: 80 characters hold them."""


@click.command(
    "sweep",
    epilog="Example: alens sweep grid.toml gpt2-cache ablations; as the second of four jobs: alens sweep grid.toml gpt2-cache ablations --worker 1/4",
)
@click.argument("config", type=PathName(dir_okay=False))
@click.argument("store", type=PathName())
@click.argument("out", type=PathName())
@worker_option
@SWEEP
@STAGE
@max_minutes_option
@click.option(
    "--table",
    "only_table",
    is_flag=True,
    help="Fit nothing: write the table of the variants that are finished.",
)
@click.option(
    "--against", metavar="NAME", help="Compare with this variant.  [default: the one with the lowest KL]"
)
@json_option
def command(
    config: Path,
    store: Path,
    out: Path,
    worker: str,
    max_minutes: float | None,
    only_table: bool,
    against: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Fit every variant that CONFIG asks for from the cache STORE, and compare them in the directory OUT.

    CONFIG is a TOML file: settings of `alens fit` at the top, lists of values in [grid], and further variants in
    [[variant]] tables. Variants that read the same rows share one read. Run the same command again to resume, or to
    rewrite the table.
    """
    from alens.job.worker import parse_worker
    from alens.sweep.variants import read_sweep

    grid, share = read_sweep(config), parse_worker(worker)
    with stopping(max_minutes) as should_stop, watching() as report:
        with starting():
            from alens.sweep.many_fits import run_sweep, write_sweep_table

        request = SweepRequest(
            grid=grid,
            store=store,
            out=out,
            worker=share,
            stage=StageSettings(**STAGE.values(given)),
            **SWEEP.values(given),
        )
        if not only_table:
            run_sweep(request, report=report, should_stop=should_stop)
        table = write_sweep_table(request, against)
    with aside():  # OUT holds the table
        show_result(table, lambda: _show(table, out), as_json=as_json)


def _show(table: "SweepTable", out: Path) -> None:
    from alens.cli.tables import fits, show_table
    from alens.sweep.table import cells, notes

    headings, rows = cells(table, settings=False)
    lines = [headings, *rows]
    if not fits(lines):
        lines = [
            _stacked([line[0].replace(",", ",\n"), *line[1:]]) for line in lines
        ]  # no part of a name is split
    show_table(lines[0], lines[1:], text=("variant",))
    show(*notes(table))
    show(f"written to {out}: table.md, table.csv, heads.csv, table.json")


def _stacked(line: Sequence[str]) -> list[str]:
    """Headings or cells of a row in stacks."""
    return ["\n".join(line[column] for column in stack) for stack in STACKS]
