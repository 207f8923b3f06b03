"""`alens atlas`: a page for every head."""

from pathlib import Path
from typing import Any

import click

from alens.atlas.settings import AtlasSettings
from alens.cli.config_file import config_option
from alens.cli.console import aside, show, show_json
from alens.cli.options import HEADS, LAYERS, SettingsOptions, json_option
from alens.cli.value_types import PathName, not_empty
from alens.cli.watch import starting, watching
from alens.pictures.numbers import size

ATLAS = SettingsOptions(AtlasSettings, layers=LAYERS, heads=HEADS)


@click.command("atlas", epilog="Example: alens atlas layer-11 gpt2-cache --html layer-11-atlas")
@click.argument("lenses", type=PathName())
@click.argument("store", type=PathName())
@click.option(
    "--html",
    "out",
    type=PathName(),
    metavar="DIR",
    required=True,
    help="The directory of the atlas. An earlier atlas is replaced.",
)
@ATLAS
@click.option(
    "--figures",
    type=PathName(),
    metavar="FILE.json",
    help="Take the figures of heads from a file that `alens eval LENSES STORE --json` wrote.  [default: judge a few rows]",
)
@click.option(
    "--roles",
    type=PathName(),
    metavar="FILE.json|none",
    help="Take role scores of the heads from a file that `alens heads MODEL --json` wrote, or leave them out.  [default: score "
    "the heads anew]",
)
@click.option("--model", callback=not_empty, help="Where the model is, if it is not where the cache says.")
@json_option
@config_option
def command(
    lenses: Path,
    store: Path,
    out: Path,
    figures: Path | None,
    roles: Path | None,
    model: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Write a page for every head of LENSES over the rows of the cache STORE, with an index of all.

    The page of a head has its figures with intervals, the tokens that it raises and lowers most and those that its lens
    lists most over the cache, the rows where it is strongest and rows where it is as strong as usual, and the heads that
    write alike. DIR/index.html is a grid of all heads. The pages load nothing from the network: open them from disk.
    DIR is written completely or not at all.
    """
    with watching() as report:
        with starting():
            from alens.atlas.make_atlas import make_atlas
            from alens.atlas.roles import read_roles
            from alens.lens.lenses import load_lenses
            from alens.store.cache_reader import open_cache

        scores = None
        if roles is not None:
            scores = {} if str(roles) == "none" else read_roles(roles)
        atlas = make_atlas(
            load_lenses(lenses),
            open_cache(store),
            out,
            settings=AtlasSettings(**ATLAS.values(given)),
            figures=figures,
            roles=scores,
            model=model,
            report=report,
        )
    if as_json:
        show_json(atlas.to_json())
        return
    heads = f"{len(atlas.heads):,} head{'' if len(atlas.heads) == 1 else 's'}"
    with aside():
        show(
            f"wrote an atlas of {heads}, {atlas.files:,} files ({size(atlas.bytes)}): open {out}/index.html in a browser"
        )
