"""`alens import`: published lenses, to be judged and read beside fitted ones."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from alens.cli.console import aside, show
from alens.cli.parameters import PathName, config_option, not_empty

if TYPE_CHECKING:
    from alens.exchange.request import ModelWeights


@click.command(
    "import", epilog="Example: alens import attnlens-layer-9-epoch=00-step=2795.ckpt published-9 --model gpt2"
)
@click.argument("source", type=PathName())
@click.argument("lenses", type=PathName())
@click.option(
    "--model",
    required=True,
    callback=not_empty,
    help="The model they are for: a directory, a hub id, or `demo`.",
)
@click.option("--revision", help="Commit, branch or tag of a model on the hub.")
@click.option(
    "--layer",
    type=click.IntRange(0),
    help="Only this layer; also the layer of a checkpoint whose name says none.  [default: all]",
)
@click.option(
    "--weights",
    type=click.Choice(["auto", "raw", "processed"]),
    default="auto",
    show_default=True,
    help="Of an AttentionLens checkpoint: trained on the model's weights as they are, or as TransformerLens processes them.",
)
@config_option
def command(
    source: Path, lenses: Path, model: str, revision: str | None, layer: int | None, weights: "ModelWeights"
) -> None:
    """Read published lenses from SOURCE into the directory LENSES.

    SOURCE is an AttentionLens checkpoint (or a directory of them), a tuned-lens directory, or what `alens export`
    wrote. Only weights are read: no code from a file is run. `alens eval` and `alens read` then take LENSES like
    those of a fit.
    """
    from alens.cli.watch import stopping, watching

    with watching() as report, stopping() as should_stop:
        from alens.exchange.import_lenses import import_lenses
        from alens.exchange.request import ImportRequest

        request = ImportRequest(
            source=source, lenses=lenses, model=model, revision=revision, layer=layer, weights=weights
        )
        record = import_lenses(request, report=report, should_stop=should_stop)
    layers = ", ".join(map(str, record.layers))
    with aside():
        show(f"{lenses}: {record.fit['origin']['program']} lenses of {record.site}, layers {layers}")
