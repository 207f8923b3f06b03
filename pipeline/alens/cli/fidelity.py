"""`alens fidelity`: what a cache's compression costs, and what other choices would."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alens.cli.console import show, show_json
from alens.cli.options import Flag, SettingsOptions
from alens.cli.parameters import (
    PathName,
    config_option,
    json_option,
)
from alens.fidelity.request import FidelityRequest

if TYPE_CHECKING:
    from alens.fidelity.measure import Fidelity, TargetFigure, ZFigure
    from alens.fidelity.probe_fits import FitFigure

FIDELITY = SettingsOptions(
    FidelityRequest, without=("fit",), work=Flag(type=PathName(exists=True, file_okay=False), metavar="DIR")
)

WIDTH = 100


@click.command("fidelity", epilog="Example: alens fidelity gpt2-cache --probe-heads 4 --top-k 32,64")
@click.argument("store", type=PathName())
@FIDELITY
@click.option("--no-fit", is_flag=True, help="Leave out the fits, which take most of the time.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute.",
)
@json_option
@config_option
def command(store: Path, no_fit: bool, device: str, as_json: bool, **given: Any) -> None:
    """Report what each choice of compression costs on the cache STORE, and what others would cost.

    Targets: mass that is kept, and KL to the exact distribution. z: error and bytes. For both: what lenses
    lose that are fitted to them. STORE is only read. docs/fidelity.md says how to choose by the figures.
    """
    import logging
    import os

    from alens.cli.watch import stopping, watching
    from alens.errors import RequestError

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise RequestError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}: alens fidelity is one process, start it without a launcher"
        )
    with stopping() as should_stop, watching() as report:
        logging.getLogger("alens").setLevel(
            logging.WARNING
        )  # a line for each of so many fits would bury the rest
        from alens.fidelity.measure import measure_fidelity
        from alens.machine.device import torch_device
        from alens.store.cache_reader import open_cache

        found = measure_fidelity(
            open_cache(store),
            FidelityRequest(fit=not no_fit, **FIDELITY.values(given)),
            device=torch_device(device),
            report=report,
            should_stop=should_stop,
        )
    if as_json:
        show_json(found.to_json())
    else:
        _print(found)


def _print(found: "Fidelity") -> None:
    _show(
        f"Kept mass: the probability of the k most probable tokens, {found.rows:,} rows",
        ("k", "mean", "10th percentile"),
        [[str(mass.k), f"{mass.mean:.4f}", f"{mass.percentile_10:.4f}"] for mass in found.kept_mass],
    )
    _show(
        "Targets: the k most probable tokens and m samples of the rest",
        (
            "k",
            "m",
            "",
            "bytes\na row",
            "KL to exact,\nnats",
            "KL ratio\nof lenses, mean",
            "\nworst",
            "\nhead",
        ),
        [_target_line(form) for form in found.targets],
    )
    _show(
        "z: root mean square error in % of the stored values, mean over heads and worst head",
        ("form", "bytes\na row", "z, %\nmean", "\nworst", "z W_O, %\nmean", "\nworst", "KL ratio\nmean", "\nworst", "\nhead"),
        [_z_line(form) for form in found.z],
    )  # fmt: skip
    show(*_lines(found))


def _show(title: str, columns: tuple[str, ...], lines: list[list[str]]) -> None:
    """A title and a table; the column `form` is text, the others are numbers."""
    from rich.box import SIMPLE
    from rich.table import Table

    from alens.cli.tables import console

    table = Table(box=SIMPLE)
    for name in columns:
        table.add_column(name, justify="left" if name == "form" else "right")
    for line in lines:
        table.add_row(*line)
    console(width=WIDTH).print(title, table, sep="\n")


def _target_line(form: "TargetFigure") -> list[str]:
    kl = "-" if form.kl_to_exact is None else f"{form.kl_to_exact:.4f}"
    stored = "stored" if form.stored else ""
    return [str(form.top_k), str(form.tail_samples), stored, f"{form.bytes_per_row:,}", kl, *_ratio(form.fit)]


def _z_line(form: "ZFigure") -> list[str]:
    errors = ["0"] * 4
    if form.error is not None:
        spreads = (form.error.z, form.error.output)
        errors = [f"{100 * value:.3f}" for spread in spreads for value in (spread.mean, spread.worst)]
    name = f"{form.name}{' (stored)' if form.stored else ''}"
    return [name, f"{form.bytes_per_row:,.0f}", *errors, *_ratio(form.fit)]


def _ratio(fit: "FitFigure | None") -> list[str]:
    """Mean, worst, which head."""
    return (
        ["-", "-", ""]
        if fit is None
        else [f"{fit.ratio.mean:.4f}", f"{fit.ratio.worst:.4f}", fit.ratio.worst_head]
    )


def _lines(found: "Fidelity") -> list[str]:
    """What stands below the tables."""
    lines = []
    if found.rounding is not None:
        lines.append(
            f"float16 log-probabilities: off by {found.rounding.mean:.1e} nats (largest {found.rounding.largest:.1e}), "
            f"KL {found.rounding.kl:.1e} nats"
        )
    if found.exact_teacher:
        lines.append(
            "KL to exact is not what a fit suffers: the samples are unbiased; the ratio says what a fit loses"
        )
    if found.reference is not None and found.other_order is not None:
        teacher = "exact teacher" if found.exact_teacher else "stored targets"
        kls = found.reference.kl.values()
        lines.append(
            f"lenses: {len(found.heads)} heads ({', '.join(found.heads)}) fitted to {found.train_rows:,} rows; KL ratio is held-out KL "
            f"over that of the reference (z as stored, {teacher}: {sum(kls) / len(kls):.4f} nats), judged by the {teacher} on the same "
            f"{found.held_out_rows:,} rows"
        )
        lines.append(
            f"noise: the reference with another order of rows has ratio {found.other_order.ratio.mean:.4f}, worst {found.other_order.ratio.worst:.4f}"
        )
    return [*lines, *found.notes]
