"""`alens fidelity`: what a cache's compression costs, and what other choices would."""

import logging
import os
from pathlib import Path
from typing import Any

import click

from alens.cli.config_file import config_option
from alens.cli.console import show_result
from alens.cli.options import HEADS, Flag, SettingsOptions, json_option
from alens.cli.value_types import PathName
from alens.cli.watch import starting, stopping, watching
from alens.errors import RequestError
from alens.fidelity.request import FidelityRequest

FIDELITY = SettingsOptions(
    FidelityRequest,
    without=("fit",),
    heads=HEADS,
    work=Flag(type=PathName(exists=True, file_okay=False), metavar="DIR"),
)


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

    For targets it reports the mass that is kept, and the KL to the exact distribution. For z it reports error and
    bytes. For both it fits lenses, and reports how much they lose. STORE is not changed. docs/fidelity.md says how to
    choose by the figures.
    """
    from alens.cli.fidelity_table import show_fidelity

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise RequestError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}: alens fidelity is one process, start it without a launcher"
        )
    with stopping() as should_stop, watching() as report:
        # lines of each of so many fits would bury the rest
        logging.getLogger("alens").setLevel(logging.WARNING)
        logging.getLogger("alens.fidelity").setLevel(logging.INFO)
        with starting():
            from alens.fidelity.measure import measure_fidelity
            from alens.machine.device import torch_device
            from alens.store.cache_reader import open_cache

        fidelity = measure_fidelity(
            open_cache(store),
            FidelityRequest(fit=not no_fit, **FIDELITY.values(given)),
            device=torch_device(device),
            report=report,
            should_stop=should_stop,
        )
    show_result(fidelity, lambda: show_fidelity(fidelity), as_json=as_json)
