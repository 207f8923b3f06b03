"""`alens export`: lenses as safetensors that need no alens, in the paper's form."""

import logging
from pathlib import Path
from typing import Any

import click

from alens.cli.config_file import config_option
from alens.cli.console import aside, show
from alens.cli.options import HEADS, LAYERS, SettingsOptions
from alens.cli.value_types import PathName
from alens.cli.watch import starting, stopping, watching
from alens.exchange.request import ExportRequest
from alens.pictures.numbers import size

EXPORT = SettingsOptions(ExportRequest, layers=LAYERS, heads=HEADS)


@click.command("export", epilog="Example: alens export layer-11 gpt2-layer-11 --dtype bfloat16")
@click.argument("lenses", type=PathName())
@click.argument("out", type=PathName())
@EXPORT
@config_option
def command(lenses: Path, out: Path, **given: Any) -> None:
    """Write LENSES to the directory OUT in a form that needs no alens: a safetensors file per layer, and a model card.

    In the paper's form a lens acts on what the head writes into the residual stream. It is pinv(W_O) times the lens
    on z, which gives the same logits for every head output. The log says beforehand how large the files will be. OUT
    is written completely or not at all.
    """

    with stopping() as should_stop, watching() as report:
        with starting():
            from alens.exchange import export
            from alens.lens.lenses import load_lenses

        plan = export.plan(load_lenses(lenses), ExportRequest(**EXPORT.values(given)))
        logging.getLogger("alens").info(
            f"{out} will take {size(plan.bytes)}: heads {plan.heads}, {plan.width:,} x {plan.lenses.record.model.d_vocab:,} {plan.dtype} a head"
        )
        export.write(plan, out, report=report, should_stop=should_stop)
    with aside():
        show(f"{out}: {plan.bytes:,} bytes of weights; read README.md there before you publish it")
