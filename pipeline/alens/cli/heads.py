"""`alens heads`: which head of a model does what."""

from pathlib import Path
from typing import Any

import click

from alens.cli.config_file import config_option
from alens.cli.console import printed
from alens.cli.options import Flag, SettingsOptions, device_option, heat_map_option, json_option
from alens.cli.value_types import PathName, not_empty
from alens.cli.watch import starting, watching
from alens.studies.families.settings import FamilySettings

FAMILY = SettingsOptions(FamilySettings, top_k=Flag("--top-k"))


@click.command("heads", epilog="Example: alens heads gpt2 --heat-map induction.png")
@click.argument("model", callback=not_empty)
@FAMILY
@click.option(
    "--relations",
    "relation_files",
    type=PathName(),
    metavar="FILE.json|FILE.tsv",
    multiple=True,
    help="Further families: pairs of words, one relation in a .tsv, one or several in a .json.",
)
@click.option(
    "--show",
    "--top",
    "show",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Heads of each family in the table.",
)
@heat_map_option("how far all heads stand above their control in one family")
@click.option(
    "--heat-map-of",
    default="induction",
    show_default=True,
    metavar="FAMILY",
    help="Which family, by its name in the table.",
)
@click.option("--revision", help="Revision of a MODEL on the hub.")
@device_option
@json_option
@config_option
def command(
    model: str,
    relation_files: tuple[Path, ...],
    show: int,
    heat_map: Path | None,
    heat_map_of: str,
    revision: str | None,
    device: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Score every head of MODEL on what it does: no lenses, no cache and no labels are needed.

    MODEL is a hub id, a Hugging Face directory, a GGUF file, or `demo`. Four families are scored by mean attention on random tokens: to
    the previous token, to the same token earlier (duplicate), to the token after that (induction), and to the first
    token. Further ones are scored by the parameters: a head that looks at a token raises it (copying), lowers it
    (suppression), or raises its partner in a relation, such as a capital or a past tense. The control of a score is the
    same for other places or other tokens; heads are ranked by how far they stand above it.
    """
    from alens.cli.heads_table import check_family, head_grid, show_families

    with watching() as report:
        with starting():
            from alens.pictures import heat_map as pictures
            from alens.studies.families.relations import read_relations
            from alens.studies.families.score_heads import families_of, score_heads

        settings = FamilySettings(**FAMILY.values(given))
        relations = read_relations(relation_files)
        names = families_of(relations)
        if heat_map is not None:
            pictures.check_path(heat_map)
            check_family(heat_map_of, names)
        families = score_heads(
            model,
            settings,
            relations=relations,
            revision=revision,
            device=device,
            report=report,
        )
    with printed(families, lambda: show_families(families, show), as_json=as_json):
        if heat_map is not None:
            pictures.write(heat_map, head_grid(families, heat_map_of))
