"""`alens basis`: the directions a lens rests on, and whether the model rests on them too."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alens.cli.console import show
from alens.cli.options import HEADS, LAYERS, SettingsOptions
from alens.cli.parameters import (
    PathName,
    config_option,
    heat_map_option,
    json_option,
    model_options,
    printed,
)
from alens.lens.marks import label, note
from alens.studies.basis.settings import BasisSettings

if TYPE_CHECKING:
    from alens.studies.basis.result import BasisStudy, LayerFidelity

BASIS = SettingsOptions(BasisSettings, layers=LAYERS, heads=HEADS)


@click.command(
    "basis", epilog="Example: alens basis layer-11 gpt2-cache --layer 11 --head 0-3 --save basis.safetensors"
)
@click.argument("lenses", type=PathName())
@click.argument("store", type=PathName())
@BASIS
@heat_map_option("rho of each head")
@click.option(
    "--save",
    type=PathName(),
    metavar="FILE.safetensors",
    help="Write the lenses' directions.",
)
@model_options
@json_option
@config_option
def command(
    lenses: Path,
    store: Path,
    heat_map: Path | None,
    save: Path | None,
    model: str | None,
    device: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Find the directions of z that each lens of LENSES rests on, and ablate them in the model.

    Rho is the causal fidelity of a head: the rank correlation, over directions, of the influence on the lens's
    reading and the influence on the model's own output. Held-out text is taken from the cache STORE; on another
    cache than that of the fit, all of it.
    """
    from alens.cli.watch import watching

    with watching() as report:
        from alens.lens.lenses import load_lenses
        from alens.pictures import heat_map as pictures
        from alens.reading.lensed_model import LensedModel
        from alens.store.cache_reader import open_cache
        from alens.studies.basis import basis_file
        from alens.studies.basis.causal_basis import causal_bases
        from alens.studies.basis.settings import BasisSettings

        asked = BASIS.values(given)
        settings = BasisSettings(
            **{**asked, "compare": () if asked["compare"] == ("none",) else asked["compare"]}
        )
        if heat_map is not None:
            pictures.check_path(heat_map)
        if save is not None:
            basis_file.check_path(save)
        opened, cache = load_lenses(lenses), open_cache(store)
        reader = LensedModel(opened, model=model, device=device, report=report)
        found = causal_bases(reader, cache, settings=settings, report=report)
    with printed(found, lambda: _show(found), as_json=as_json):
        if save is not None:
            basis_file.put(save, found, opened.record.model.weights_sha256)
        if heat_map is not None:
            pictures.write(heat_map, _heat_map(found))


def _show(study: "BasisStudy") -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    from alens.cli.tables import console
    from alens.statistics.groups import said

    shown, top = console(), study.settings.top
    table = Table(
        title=f"{study.directions} directions, {study.settings.ablation} ablation, "
        f"{study.sequences} sequences of {study.positions} positions; influences in nats",
        box=SIMPLE,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("head", justify="right")
    table.add_column("basis", no_wrap=True)
    for title in ("rho", "95 %", "p", "reading\nall", "model\nall", f"model\nfirst {top}"):
        table.add_column(title, justify="right", no_wrap=True)
    for head in study.heads:
        for basis in (one.fidelity for one in head.bases):
            table.add_row(
                label(head.layer, head.head, head.says_nothing) if basis.basis == "lens" else "",
                basis.basis,
                _number(basis.correlation.rho),
                _interval(basis.correlation.interval),
                "-" if basis.correlation.p_value is None else f"{basis.correlation.p_value:.1g}",
                f"{basis.lens_whole:.3f}",
                f"{basis.model_whole:.4f}",
                _percent(basis.model_share),
            )
    shown.print(table)
    table = Table(title="By layer: means over heads", box=SIMPLE, pad_edge=False, collapse_padding=True)
    table.add_column("layer", justify="right")
    table.add_column("basis", no_wrap=True)
    for title in ("rho", "95 %", "lowest, highest", f"model\nfirst {top}"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in (basis for layer in study.layers for basis in layer):
        table.add_row(
            str(one.layer) if one.basis == "lens" else "",
            one.basis,
            _number(one.rho),
            _interval(one.interval),
            _range(one),
            _percent(one.model_share),
        )
    shown.print(table)
    show(
        "rho: rank correlation, over directions, of influence on the reading and on the model",
        said(study.intervals_over, study.groups),
        f"all: every direction of z ablated together; first {top}: the first {top} together, as a share of all",
    )
    if meaning := note((head.layer, head.head) for head in study.heads if head.says_nothing):
        show(meaning)
    if study.has_few_rows:
        show(
            f"few rows: {study.sequences * study.positions:,} were measured on; rho is likely too high, and its interval "
            "often misses: give more --sequences"
        )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _interval(value: tuple[float, float] | None) -> str:
    return "-" if value is None else f"{value[0]:.2f} to {value[1]:.2f}"


def _range(one: "LayerFidelity") -> str:
    return "-" if one.lowest is None or one.highest is None else f"{one.lowest:.2f}, {one.highest:.2f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _heat_map(study: "BasisStudy") -> Any:
    import numpy as np

    from alens.pictures.heat_map import HeatMap

    layers = list(dict.fromkeys(head.layer for head in study.heads))
    heads = list(dict.fromkeys(head.head for head in study.heads))
    values = np.full((len(layers), len(heads)), np.nan)
    nothing = np.zeros(values.shape, dtype=np.bool_)
    for head in study.heads:
        nothing[layers.index(head.layer), heads.index(head.head)] = head.says_nothing
        rho = head.bases[0].fidelity.correlation.rho
        if rho is not None:
            values[layers.index(head.layer), heads.index(head.head)] = rho
    return HeatMap(
        title=f"Causal fidelity of {values.size} head{'' if values.size == 1 else 's'}",
        values=values,
        rows=[str(layer) for layer in layers],
        columns=[str(head) for head in heads],
        row_title="layer",
        column_title="head",
        colour_title="rho, lens and model",
        centre=0.0,
        nothing=nothing,
    )
