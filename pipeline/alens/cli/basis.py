"""`alens basis`: the directions a lens rests on, and whether the model rests on them too."""

from pathlib import Path
from typing import Any

import click

from alens.cli.config_file import config_option
from alens.cli.console import printed
from alens.cli.options import HEADS, LAYERS, SettingsOptions, heat_map_option, json_option, model_options
from alens.cli.value_types import PathName
from alens.cli.watch import starting, watching
from alens.studies.basis.settings import BasisSettings

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
    reading and the influence on the model's own output. The study takes held-out text from the cache STORE; if this
    is not the cache of the fit, it takes text that the fit did not train on.
    """
    from alens.cli.basis_table import head_grid, show_basis

    with watching() as report:
        with starting():
            from alens.lens.lenses import load_lenses
            from alens.pictures import heat_map as pictures
            from alens.reading.lensed_model import LensedModel
            from alens.store.cache_reader import open_cache
            from alens.studies.basis import basis_file
            from alens.studies.basis.causal_basis import causal_bases

        asked = BASIS.values(given)
        settings = BasisSettings(
            **{**asked, "compare": () if asked["compare"] == ("none",) else asked["compare"]}
        )
        if heat_map is not None:
            pictures.check_path(heat_map)
        if save is not None:
            basis_file.check_path(save)
        opened, cache = load_lenses(lenses), open_cache(store)
        with starting():
            reader = LensedModel(opened, model=model, device=device, report=report)
        study = causal_bases(reader, cache, settings=settings, report=report)
    with printed(study, lambda: show_basis(study), as_json=as_json):
        if save is not None:
            basis_file.put(save, study, opened.record.model.weights_sha256)
        if heat_map is not None:
            pictures.write(heat_map, head_grid(study))
