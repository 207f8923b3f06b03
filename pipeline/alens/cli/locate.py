"""`alens locate`: which heads raise a list of terms on some prompts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alens.cli.console import show as show_lines
from alens.cli.options import HEADS, LAYERS, SettingsOptions
from alens.cli.p_value import shown
from alens.cli.parameters import (
    PathName,
    config_option,
    heat_map_option,
    json_option,
    model_options,
    printed,
)
from alens.errors import RequestError
from alens.lens.marks import kl_reference, label, note
from alens.studies.location.settings import LocateSettings

if TYPE_CHECKING:
    from alens.reading.prompts import Prompt
    from alens.studies.location.result import HeadEffect, Location, ReaderEffect

LOCATE = SettingsOptions(LocateSettings, layers=LAYERS, heads=HEADS)

TERMS_SHOWN = 2


@click.command(
    "locate", epilog="Example: alens locate layer-11 --terms he.txt --prompts men.txt --control women.txt"
)
@click.argument("lenses", type=PathName())
@click.option(
    "--terms",
    "terms_file",
    type=PathName(),
    required=True,
    help="Words, one a line; each counts as it is and with a space before it.",
)
@click.option(
    "--prompts",
    "prompts_file",
    type=PathName(),
    required=True,
    help="Prompts: .txt, one a line, or .jsonl; those with the label `control` are controls.",
)
@click.option(
    "--control",
    "control_file",
    type=PathName(),
    help="Control prompts.  [default: those so labelled; else the model's mean output]",
)
@LOCATE
@click.option("--first-token", is_flag=True, help="A term of several tokens counts by its first.")
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
@model_options
@json_option
@config_option
def command(
    lenses: Path,
    terms_file: Path,
    prompts_file: Path,
    control_file: Path | None,
    first_token: bool,
    show: int,
    heat_map: tuple[Path, ...],
    model: str | None,
    device: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Rank the heads of LENSES by how far they raise terms on prompts above control prompts.

    The effect of a head is the mean log of the terms' summed probability on the prompts, less that on the
    controls, in nats. Tests are by permutation, corrected for the number of heads.
    """
    from alens.cli.watch import watching

    with watching() as report:
        from alens.lens.lenses import load_lenses
        from alens.pictures import heat_map as pictures
        from alens.reading.lensed_model import LensedModel
        from alens.reading.terms import read_terms, to_tokens
        from alens.studies.location.locate import locate
        from alens.studies.location.locate_map import effect_map
        from alens.studies.location.prompt_groups import groups

        for path in heat_map:
            pictures.check_path(path)
        settings = LocateSettings(**LOCATE.values(given))
        words = read_terms(terms_file)
        prompts, controls = _prompts(prompts_file, control_file)
        groups(prompts, controls, settings)  # told before the model is loaded, not after
        opened = load_lenses(lenses)
        opened.chosen(settings.layers, settings.heads, report)
        reader = LensedModel(opened, model=model, device=device, report=report)
        terms = to_tokens(words, reader.model.tokenizer, first_token=first_token)
        found = locate(
            reader,
            terms,
            prompts,
            controls,
            settings=settings,
            report=report,
        )
    with printed(found, lambda: _show(found, show), as_json=as_json):
        for path in heat_map:
            pictures.write(path, effect_map(found))


def _prompts(prompts_file: Path, control_file: Path | None) -> "tuple[list[Prompt], list[Prompt] | None]":
    from alens.reading.prompts import read_prompts
    from alens.studies.location.locate import by_label

    prompts, labelled = by_label(read_prompts(prompts_file))
    if control_file is None:
        return prompts, labelled or None
    if labelled:
        raise RequestError(
            f"{prompts_file} holds controls of its own (label `control`), and {control_file} others: leave one out"
        )
    return prompts, read_prompts(control_file)


def _show(found: "Location", most: int) -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    from alens.cli.tables import console

    settings = found.settings
    against = "the mean output" if found.controls is None else f"{found.controls} controls"
    table = Table(
        title=f"{len(found.terms)} terms, {found.prompts} prompts against {against}"
        f"{' in pairs' if settings.paired else ''}, {found.position} position; effects in nats",
        box=SIMPLE,
    )
    beside = found.heads[0].unembedding is not None
    other = "controls" if found.controls else "mean"
    table.add_column("head" if found.on_heads else "layer", justify="right")
    for name in (
        f"effect\n{100 * (1 - settings.alpha):g} %",
        f"p\n{settings.correction}",
        f"P(terms)\n{other}",
        "lift\nKL",
    ):
        table.add_column(name, justify="right")
    if beside:
        table.add_column("unembedding\np", justify="right")
    table.add_column("terms that\nrise most")
    for head in found.heads[:most]:
        plain = []
        if head.unembedding is not None:
            plain = [f"{head.unembedding.effect:+.3f}\n{_p(head.unembedding)}"]
        name = label(head.layer, head.head, head.says_nothing) if found.on_heads else str(head.layer)
        cells = _cells(head, found.mean_output_kl)
        table.add_row(name, *cells, *plain, _terms(head))
    console().print(table)
    own = found.model
    show_lines(
        f"the model's own next token: effect {own.effect:+.3f} [{own.low:+.3f}, {own.high:+.3f}], p {_p(own)} (one test)"
    )
    show_lines(*_notes(found))


def _cells(head: "HeadEffect", mean_output_kl: float | None) -> list[str]:
    effect = head.lens
    above = ">" if mean_output_kl is not None and head.lens_kl > mean_output_kl else ""
    return [
        f"{effect.effect:+.3f}\n{effect.low:+.2f}..{effect.high:+.2f}",
        _p(effect) + ("*" if head.significant else " "),
        f"{100 * effect.probability:.3g}%\n{100 * effect.control_probability:.3g}%",
        f"{'-' if effect.lift is None else f'{effect.lift:.2f}'}\n{above}{head.lens_kl:.2f}",
    ]


def _p(effect: "ReaderEffect") -> str:
    return shown(effect.p_corrected, 4)


def _terms(head: "HeadEffect") -> str:
    rising = [share for share in head.terms if share.probability > share.control_probability]
    return "\n".join(
        f"{share.term} {100 * (share.probability - share.control_probability):+.2g}%"
        for share in rising[:TERMS_SHOWN]
    )


def _notes(found: "Location") -> list[str]:
    from alens.statistics.permutation import FEWEST_OF_UNEQUAL_SPREAD

    settings, lines = found.settings, list(found.notes)
    raised = sum(head.significant and head.lens.effect > 0 for head in found.heads)
    lowered = sum(head.significant and head.lens.effect < 0 for head in found.heads)
    which = "heads" if found.on_heads else "layers"
    more = "redraws" if found.controls is None else "sign flips"
    lines.append(
        f"* significant: {raised} of {len(found.heads)} {which} raise the terms, {lowered} lower them "
        f"(p {settings.correction} <= {settings.alpha:g}, {found.relabellings:,} relabellings, {'all' if found.exact else 'drawn'}"
        f"{f', {found.more_draws:,} {more}' if found.more_draws else ''})"
    )
    lines += kl_reference(found.mean_output_kl)
    if meaning := note((head.layer, head.head) for head in found.heads if head.says_nothing):
        lines.append(meaning)
    if not found.can_be_significant:
        lines.append(
            f"too few prompts: one head alone could reach p {found.smallest_p:.3g} at best; give more prompts and controls"
        )
    if found.needs_equal_spread:
        lines.append(
            f"fewer than {FEWEST_OF_UNEQUAL_SPREAD} of a kind: p holds only where prompts and controls spread alike; give more, or pairs"
        )
    if found.spreads_unequally:
        lines.append(
            f"scores of prompts spread {found.spread_ratio:.2g} times as much as those of controls: p holds if they are not skewed"
        )
    if found.controls is None:
        lines.append(
            "no controls: compared with the model's mean output over the text of the fit; "
            "other prompts of this form may raise the terms as much (--control)"
        )
    if found.prompts_with_terms:
        of = found.prompts + (found.controls or 0)
        lines.append(
            f"a term stands in {found.prompts_with_terms} of {of} prompts and controls: a head may raise it there by copying"
        )
    return lines
