"""`alens compare`: which heads read two prompts, or two sets of them, differently; and a detector."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alens.cli.options import HEADS, LAYERS, Flag, SettingsOptions
from alens.cli.parameters import (
    PathName,
    config_option,
    heat_map_option,
    json_option,
    model_options,
    printed,
)
from alens.errors import RequestError
from alens.studies.comparison.settings import CompareSettings

if TYPE_CHECKING:
    from alens.studies.comparison.result import Comparison

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
    help="A prompt, or a file of prompts: a name that ends in .txt or .jsonl, or that is a file.",
)
@click.option("--suspect", required=True, metavar="TEXT|FILE", help="The same, of what is suspected.")
@click.option(
    "--test",
    metavar="FILE.jsonl",
    help="Fit the detector once and judge it on these prompts, labelled clean or suspect.  [default: held-out ones]",
)
@COMPARE
@click.option("--show", type=click.IntRange(1), default=12, show_default=True, help="Heads in the table.")
@click.option("--roc", type=PathName(), metavar="FILE.png", help="Draw the ROC curves.")
@heat_map_option("the change of every head")
@model_options
@json_option
@config_option
def command(
    lenses: Path,
    clean: str,
    suspect: str,
    test: str | None,
    show: int,
    roc: Path | None,
    heat_map: Path | None,
    model: str | None,
    device: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Rank the heads of LENSES by how far their readings of suspect prompts are from those of clean ones.

    Shown are the tokens that appear and vanish, what noise alone would give, and, with five prompts or more on
    either side, how well a detector tells prompts apart that it was not fitted on. All prompts are read with the
    model of the lenses, once each.
    """
    from alens.cli.compare_table import show_comparison
    from alens.cli.watch import watching

    with watching() as report:
        from alens.lens.lenses import load_lenses
        from alens.pictures import heat_map as heat_maps
        from alens.pictures import roc_curves as rocs
        from alens.studies.comparison.prompt_sets import labels_of, prompt_set

        for path, check in ((roc, rocs.check_path), (heat_map, heat_maps.check_path)):
            if path is not None:
                check(path)
        if roc is not None and heat_map is not None and roc.resolve() == heat_map.resolve():
            raise RequestError(f"{roc} cannot hold both pictures: name two files")
        sets = (prompt_set(clean), prompt_set(suspect))
        tested = None if test is None else prompt_set(test)
        if tested is not None and not tested.is_file:
            raise RequestError(f"--test {test!r} is no file of prompts: give .jsonl, with a label for each")
        if tested is not None:
            labels_of(tested)
        opened = load_lenses(lenses)

        from alens.reading.lensed_model import LensedModel
        from alens.studies.comparison.compare import check_pairs, compare
        from alens.studies.comparison.detector_splits import detectable

        settings = CompareSettings(**COMPARE.values(given))
        if settings.paired:
            check_pairs(*sets)
        if roc is not None and tested is None and not detectable(*sets):
            raise RequestError("--roc needs a detector: give 5 clean and 5 suspect prompts or more, in files")
        opened.chosen(settings.layers, settings.heads, report)
        found = compare(
            LensedModel(opened, model=model, device=device, report=report),
            *sets,
            test=tested,
            settings=settings,
            report=report,
        )
    with printed(found, lambda: show_comparison(found, show), as_json=as_json):
        if roc is not None:
            _draw_roc(roc, found)
        if heat_map is not None:
            _draw_heat_map(heat_map, found)


def _draw_roc(path: Path, found: "Comparison") -> None:
    from alens.pictures import roc_curves as rocs

    judged = found.detection
    assert judged is not None  # checked before the work
    shown = {
        "lenses, contrast": judged.lens_contrast,
        "lenses, anomaly": judged.lens_anomaly,
        "model's output, contrast": judged.model_contrast,
        "length alone": judged.length,
    }
    curves = {
        f"{name}: AUC {one.auc:.3f}": (one.false_positive_rate, one.true_positive_rate)
        for name, one in shown.items()
    }
    rocs.write(path, f"{judged.clean} clean, {judged.suspect} suspect prompts: {judged.judged_by}", curves)


def _draw_heat_map(path: Path, found: "Comparison") -> None:
    import numpy as np

    from alens.pictures import heat_map as heat_maps

    layers = sorted({head.layer for head in found.heads})
    heads = sorted({head.head for head in found.heads})
    values = np.full((len(layers), len(heads)), np.nan)
    marks, nothing = (np.zeros(values.shape, bool) for _ in range(2))
    for one in found.heads:
        cell = layers.index(one.layer), heads.index(one.head)
        values[cell], nothing[cell] = one.lens.above_noise, one.says_nothing
        noise = one.lens.noise
        marks[cell] = noise is not None and noise.p_adjusted is not None and noise.p_adjusted <= 0.05
    noisy = found.model.noise is not None
    heat_maps.write(
        path,
        heat_maps.HeatMap(
            title=f"Change of readings, {found.num_clean} clean to {found.num_suspect} suspect prompts",
            values=values,
            rows=[str(layer) for layer in layers],
            columns=[str(head) for head in heads],
            row_title="layer",
            column_title="head",
            colour_title="divergence less noise, nats" if noisy else "divergence, nats",
            marks=marks if noisy else None,
            mark_title="p at most 0.05" if noisy else "",
            nothing=nothing,
        ),
    )
