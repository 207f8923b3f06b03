"""`alens import`: published lenses, to be judged and read beside fitted ones."""

from pathlib import Path
from typing import Any

import click

from alens.cli.config_file import config_option
from alens.cli.console import aside, show
from alens.cli.options import Flag, SettingsOptions
from alens.cli.value_types import PathName, not_empty
from alens.cli.watch import stopping, watching
from alens.exchange.request import ImportRequest

IMPORT = SettingsOptions(ImportRequest, without=("source", "lenses"), model=Flag(callback=not_empty))


@click.command(
    "import", epilog="Example: alens import attnlens-layer-9-epoch=00-step=2795.ckpt published-9 --model gpt2"
)
@click.argument("source", type=PathName())
@click.argument("lenses", type=PathName())
@IMPORT
@config_option
def command(source: Path, lenses: Path, **given: Any) -> None:
    """Read published lenses from SOURCE into the directory LENSES.

    SOURCE is an AttentionLens checkpoint (or a directory of them), a file of Jacobian lenses of layers or heads as
    TransformerLens keeps them, a tuned-lens directory, or what `alens export` wrote. Only weights are read: no code
    from a file is run. `alens eval` and `alens read` then take LENSES like those of a fit.
    """

    with stopping() as should_stop, watching() as report:
        from alens.exchange.import_lenses import import_lenses

        request = ImportRequest(source=source, lenses=lenses, **IMPORT.values(given))
        record = import_lenses(request, report=report, should_stop=should_stop)
    layers = ", ".join(map(str, record.layers))
    with aside():
        show(f"{lenses}: {record.fit['origin']['program']} lenses of {record.site}, layers {layers}")
