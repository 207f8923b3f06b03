"""`alens compare`: which heads read two prompts, or two sets of them, differently; and a detector."""

from pathlib import Path
from typing import Any

import click

from alens.cli.config_file import config_option
from alens.cli.console import printed
from alens.cli.options import (
    HEADS,
    LAYERS,
    Flag,
    SettingsOptions,
    effect_option,
    heat_map_option,
    json_option,
    model_options,
    role_option,
    store_of_fit_option,
)
from alens.cli.value_types import PathName
from alens.cli.watch import starting, watching
from alens.errors import RequestError
from alens.reading.settings import Role
from alens.studies.comparison.settings import CompareSettings

COMPARE = SettingsOptions(CompareSettings, layers=LAYERS, heads=HEADS, position=Flag(metavar="last|all|N"))


@click.command(
    "compare",
    epilog="Example: alens compare layer-11 --clean clean.txt --suspect suspect.txt --roc roc.png; two prompts: "
    'alens compare layer-11 --clean "The man went" --suspect "The knight went"',
)
@click.argument("lenses", type=PathName())
@click.option(
    "--clean",
    required=True,
    metavar="TEXT|FILE",
    help="A prompt, or a file of prompts: a name that ends in .txt, .jsonl or .json (conversations), or that is a file.",
)
@click.option(
    "--suspect", required=True, metavar="TEXT|FILE", help="A suspect prompt, or a file of suspect prompts."
)
@click.option(
    "--test",
    metavar="FILE.jsonl",
    help="Fit the detector once and judge it on these prompts, labelled clean or suspect.  [default: held-out ones]",
)
@role_option
@COMPARE
@click.option("--show", type=click.IntRange(1), default=12, show_default=True, help="Heads in the table.")
@click.option("--roc", type=PathName(), metavar="FILE.png", help="Draw the ROC curves.")
@heat_map_option("the change of every head")
@effect_option
@store_of_fit_option
@model_options
@json_option
@config_option
def command(
    lenses: Path,
    clean: str,
    suspect: str,
    test: str | None,
    role: Role | None,
    show: int,
    roc: Path | None,
    heat_map: Path | None,
    effect: Path | None,
    store: Path | None,
    model: str | None,
    device: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Rank the heads of LENSES by how far their readings of suspect prompts are from those of clean ones.

    The table shows the tokens that appear and vanish, and how large a change noise alone would give. With five
    prompts or more on either side, it also shows how well a detector separates prompts that it was not fitted on. The
    model runs once on each prompt.
    """
    from alens.cli.compare_table import head_grid, roc_curves, show_comparison

    with watching() as report:
        with starting():
            from alens.lens.lenses import load_lenses
            from alens.pictures import heat_map as heat_maps
            from alens.pictures import roc_curves as rocs
            from alens.studies.comparison.prompt_sets import labels_of, prompt_set

        for path, check in ((roc, rocs.check_path), (heat_map, heat_maps.check_path)):
            if path is not None:
                check(path)
        if roc is not None and heat_map is not None and roc.resolve() == heat_map.resolve():
            raise RequestError(f"{roc} cannot hold both pictures: name two files")
        sets = (prompt_set(clean, role=role), prompt_set(suspect, role=role))
        tested = None if test is None else prompt_set(test, role=role)
        if tested is not None and not tested.is_file:
            raise RequestError(
                f"--test {test!r} is not a file of prompts: give .jsonl, with a label for each"
            )
        if tested is not None:
            labels_of(tested)
        opened = load_lenses(lenses)

        from alens.reading.head_says import EFFECT, open_effect_lenses
        from alens.reading.lensed_model import LensedModel
        from alens.studies.comparison.compare import check_pairs, compare
        from alens.studies.comparison.detector_splits import detectable

        settings = CompareSettings(**COMPARE.values(given))
        if settings.paired:
            check_pairs(*sets)
        if roc is not None and tested is None and not detectable(*sets):
            raise RequestError("--roc needs a detector: give 5 clean and 5 suspect prompts or more, in files")
        opened.chosen(settings.layers, settings.heads, report)
        effects = open_effect_lenses(effect, wanted=settings.by == EFFECT)
        with starting():
            reader = LensedModel(
                opened, model=model, store=store, effect=effects, device=device, report=report
            )
        comparison = compare(
            reader,
            *sets,
            test=tested,
            settings=settings,
            report=report,
        )
    with printed(comparison, lambda: show_comparison(comparison, show), as_json=as_json):
        if roc is not None:
            rocs.write(roc, *roc_curves(comparison))
        if heat_map is not None:
            heat_maps.write(heat_map, head_grid(comparison))
