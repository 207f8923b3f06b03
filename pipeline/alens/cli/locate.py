"""`alens locate`: which heads raise a list of terms on some prompts, or each prompt's own answer."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alens.cli.config_file import config_option
from alens.cli.console import printed
from alens.cli.options import (
    HEADS,
    LAYERS,
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
from alens.studies.location.settings import LocateSettings

if TYPE_CHECKING:
    from alens.reading.prompts import Prompt
    from alens.studies.location.questions import Question

LOCATE = SettingsOptions(LocateSettings, layers=LAYERS, heads=HEADS)


@click.command(
    "locate", epilog="Example: alens locate layer-11 --terms he.txt --prompts men.txt --control women.txt"
)
@click.argument("lenses", type=PathName())
@click.option(
    "--terms",
    "terms_file",
    type=PathName(),
    help="A file of words, one per line; each counts as it is and with a space before it. Not where the lines of --prompts have "
    "targets of their own.",
)
@click.option(
    "--prompts",
    "--chat",
    "prompts_file",
    type=PathName(),
    required=True,
    help="A file of prompts: .txt with one per line, or .jsonl, where the label `control` marks controls; or where each line has "
    "`prompt` and its own `target`, and perhaps a `foil` and a `control` prompt; or .json with conversations.",
)
@click.option(
    "--control",
    "control_file",
    type=PathName(),
    help="A file of control prompts.  [default: those so labelled; else the model's mean output]",
)
@role_option
@LOCATE
@click.option(
    "--first-token", is_flag=True, help="If a term, target or foil is several tokens long, use its first one."
)
@click.option(
    "--show",
    "--top",
    "show",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Heads in the table.",
)
@heat_map_option("the effects of all heads; may be given several times", multiple=True)
@effect_option
@store_of_fit_option
@model_options
@json_option
@config_option
def command(
    lenses: Path,
    terms_file: Path | None,
    prompts_file: Path,
    control_file: Path | None,
    role: Role | None,
    first_token: bool,
    show: int,
    heat_map: tuple[Path, ...],
    effect: Path | None,
    store: Path | None,
    model: str | None,
    device: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Rank the heads of LENSES by how far they raise terms on prompts above control prompts, or each prompt's own answer.

    The effect of a head is the mean log of the terms' summed probability on the prompts, minus the same mean on the
    controls, in nats, by the head's lens or, with --by written, by what it writes, or with --by effect by its effect lens.
    The tests are permutation tests, corrected for the number of heads.
    """
    from alens.cli.locate_table import head_grid, show_location

    with watching() as report:
        with starting():
            from alens.lens.lenses import load_lenses
            from alens.pictures import heat_map as pictures
            from alens.reading.head_says import EFFECT, open_effect_lenses
            from alens.reading.lensed_model import LensedModel
            from alens.reading.terms import read_terms, to_tokens
            from alens.studies.location.locate import locate

        for path in heat_map:
            pictures.check_path(path)
        settings = LocateSettings(**LOCATE.values(given))
        words = [] if terms_file is None else read_terms(terms_file)
        prompts, controls = _asked(
            prompts_file, control_file, settings, role, has_terms=terms_file is not None
        )
        opened = load_lenses(lenses)
        opened.chosen(settings.layers, settings.heads, report)
        effects = open_effect_lenses(effect, wanted=settings.by == EFFECT)
        with starting():
            reader = LensedModel(
                opened, model=model, store=store, effect=effects, device=device, report=report
            )
        terms = to_tokens(words, reader.model.tokenizer, first_token=first_token) if words else None
        location = locate(
            reader,
            terms,
            prompts,
            controls,
            settings=settings,
            first_token=first_token,
            report=report,
        )
    with printed(location, lambda: show_location(location, show), as_json=as_json):
        for path in heat_map:
            pictures.write(path, head_grid(location))


def _asked(
    prompts_file: Path,
    control_file: Path | None,
    settings: LocateSettings,
    role: Role | None,
    *,
    has_terms: bool,
) -> "tuple[list[Prompt] | list[Question], list[Prompt] | None]":
    """Prompts and controls. What cannot be asked is refused before the model is loaded, not after."""
    from alens.reading.prompts import in_role, read_prompts
    from alens.studies.location.asked_prompts import check_questions
    from alens.studies.location.locate import by_label
    from alens.studies.location.prompt_groups import groups
    from alens.studies.location.questions import once, read_questions

    if (questions := read_questions(prompts_file)) is not None:
        check_questions(has_terms=has_terms, has_controls=control_file is not None, settings=settings)
        once(questions)
        return [replace(one, prompt=replace(one.prompt, role=role)) for one in questions], None
    if not has_terms:
        raise RequestError(
            f"--terms is missing: name a file of words, or give each line of {prompts_file} a `target` of its own (.jsonl)"
        )
    prompts, labelled = by_label(read_prompts(prompts_file))
    if labelled and control_file is not None:
        raise RequestError(
            f"{prompts_file} holds controls of its own (label `control`), and {control_file} others: leave one out"
        )
    controls = labelled or None if control_file is None else read_prompts(control_file)
    groups(prompts, controls, settings)
    return in_role(prompts, role), controls and in_role(controls, role)
