"""`alens transfer`: lenses on other heads of their model, and on a fine-tuned copy of it."""

from pathlib import Path
from typing import Any, get_args

import click

from alens.cli.config_file import config_option
from alens.cli.console import printed
from alens.cli.options import HEADS, LAYERS, SettingsOptions, device_option, heat_map_option, json_option
from alens.cli.transfer_table import FIGURES, copy_grid, matrix_grid, show_copy, show_matrix
from alens.cli.value_types import PathName
from alens.cli.watch import starting, watching
from alens.errors import RequestError
from alens.studies.transfer.settings import ReadBy, TransferSettings

TRANSFER = SettingsOptions(TransferSettings, layers=LAYERS, heads=HEADS)


@click.command(
    "transfer",
    epilog="Example: alens transfer .demo/lenses .demo/cache --between layers --heat-map transfer.png",
)
@click.argument("lenses", type=PathName())
@click.argument("store", type=PathName())
@click.option(
    "--to",
    "copy",
    type=PathName(),
    metavar="STORE2",
    help="A cache of a fine-tuned copy of the model: lenses are put on its heads.",
)
@click.option(
    "--native",
    type=PathName(),
    metavar="LENSES2",
    help="Lenses fitted on STORE2, to compare with; judged on rows that neither fit has seen.",
)
@click.option(
    "--between",
    type=click.Choice(["layers", "heads"]),
    default="layers",
    show_default=True,
    help="What the matrix shows, without --to: means over pairs of heads, or every pair.",
)
@TRANSFER
@click.option(
    "--by",
    type=click.Choice(get_args(ReadBy)),
    help="With --to: read a head's output through the old W_O, or its z as it is.  [default: value]",
)
@click.option(
    "--figure",
    type=click.Choice(list(FIGURES)),
    default="kl",
    show_default=True,
    help="What table and heat map show: KL or cross-entropy.",
)
@heat_map_option("the matrix of differences")
@device_option
@json_option
@config_option
def command(
    lenses: Path,
    store: Path,
    copy: Path | None,
    native: Path | None,
    between: str,
    by: str | None,
    figure: str,
    heat_map: Path | None,
    device: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Apply LENSES to heads that they were not fitted to, and show what that costs.

    STORE is a cache of their model. Without --to, each lens reads every other head, whose values are brought to the
    lens's coordinates through the residual stream: rows of the matrix are lenses, columns are the heads they read.
    With --to, each lens reads its own head of a fine-tuned copy. Figures are KL and cross-entropy minus those of the
    head's own lens, in nats, on rows that the fit held out.
    """

    _check(copy, native, by, between)
    with watching() as report:
        with starting():
            from alens.lens.lenses import load_lenses
            from alens.machine.device import torch_device
            from alens.pictures import heat_map as pictures
            from alens.store.cache_reader import open_cache
            from alens.store.schema import ATTN_Z
            from alens.studies.transfer.finetuned import transfer_to_copy
            from alens.studies.transfer.transfer import transfer

        if heat_map is not None:
            pictures.check_path(heat_map)
        opened, cache = load_lenses(lenses), open_cache(store)
        if by == "output" and opened.record.site != ATTN_Z:
            raise RequestError(
                f"{lenses} reads {opened.record.site}, which has no output matrix: leave --by out"
            )
        settings = TransferSettings(**TRANSFER.values(given))
        asked: Any = {"settings": settings, "device": torch_device(device)}
        if copy is None:
            matrix = transfer(opened, cache, report=report, **asked)
        else:
            fitted = None if native is None else load_lenses(native)
            transferred = transfer_to_copy(
                opened, cache, open_cache(copy), native=fitted, report=report, **asked
            )
            way = transferred.way(by or "value", settings.match)
    if copy is None:
        with printed(matrix, lambda: show_matrix(matrix, between, figure), as_json=as_json):
            if heat_map is not None:
                pictures.write(heat_map, matrix_grid(matrix, between, figure))
    else:
        with printed(transferred, lambda: show_copy(transferred, way, figure), as_json=as_json):
            if heat_map is not None:
                pictures.write(heat_map, copy_grid(transferred, way, figure))


def _check(copy: Path | None, native: Path | None, by: str | None, between: str) -> None:
    """Raises `RequestError` for options that mean nothing together."""
    if copy is None and native is not None:
        raise RequestError("--native names lenses of a copy: give the copy's cache with --to")
    if copy is None and by is not None:
        raise RequestError("--by says how a copy's heads are read: give the copy's cache with --to")
    if copy is not None and between == "heads":
        raise RequestError("--between heads is for one model: with --to each lens reads its own head")
