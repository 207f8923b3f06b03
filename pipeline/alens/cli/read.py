"""`alens read`: which tokens each head writes on a prompt, as tables, JSON or a page."""

import logging
from pathlib import Path
from typing import get_args

import click

from alens.cli.config_file import config_option
from alens.cli.console import show_json, tell
from alens.cli.options import (
    chat_option,
    heads_option,
    json_option,
    layers_option,
    model_options,
    role_option,
    store_of_fit_option,
)
from alens.cli.value_types import PathName
from alens.cli.watch import starting, watching
from alens.errors import RequestError
from alens.pictures.numbers import size
from alens.reading.settings import MIN_PROBABILITY, Looks, Rank, Role, Sort

log = logging.getLogger("alens")


@click.command(
    "read", epilog='Example: alens read layer-11 "The man worked as a" --layer 11 --head 0-3 --top 5'
)
@click.argument("lenses", type=PathName())
@click.argument("prompts", nargs=-1, metavar="PROMPT...")
@chat_option
@role_option
@layers_option("show")
@heads_option("show")
@click.option("--top", type=click.IntRange(1), default=8, show_default=True, help="Tokens in each list.")
@click.option(
    "--position",
    metavar="last|all|N,N",
    help="Positions, such as 3 or 0,2 (-1 is the last one), or `last`, or `all`.  [default: last; with --html all]",
)
@click.option(
    "--rank",
    type=click.Choice(get_args(Rank)),
    help="What comes first in the heads' lists. By probability, frequent tokens fill every list; by lift, what a "
    "head makes more likely than the model does on average; by own lift, than the lens itself does at its mean z; by z-score, "
    "what stands out most beside how it varies.  [default: lift; probability where imported lenses lack the mean output]",
)
@click.option(
    "--min-probability",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=MIN_PROBABILITY,
    show_default=True,
    help="In lists by lift, leave out rarer tokens, because their lift is noise. Where too few reach this probability, list the most probable.",
)
@click.option(
    "--token",
    "tokens",
    multiple=True,
    metavar="TEXT",
    help="Also give the probability and lift of this token, as written and with a space before it, in every head. Repeatable.",
)
@click.option("--first-token", is_flag=True, help="If a --token is several tokens long, use its first one.")
@click.option(
    "--compare",
    type=click.Choice(["written", "effect", "unembedding", "all", "none"]),
    help="What is shown beside the lens's list in the tables: the tokens that the head raises and lowers by what it writes, "
    "or by its effect lens, or its unembedding.  [default: written, with --effect also effect; unembedding where what heads "
    "write is not known]",
)
@click.option(
    "--effect",
    type=PathName(),
    metavar="LENSES",
    help="Effect lenses of the same model (`alens fit --lens effect`): also say what each head that has one adds to the logits.",
)
@click.option(
    "--attention",
    type=click.Choice(get_args(Looks)),
    default="weights",
    show_default=True,
    help="Below each lens's list, the tokens that the head looks at most: by attention weight, or by the size of what it "
    "moves from each (the norm of weight v W_O).",
)
@click.option(
    "--html",
    "page",
    type=PathName(),
    metavar="FILE",
    help="Write one page for a browser instead of the tables: all prompts, positions and heads. An earlier page of `alens read` is replaced.",
)
@click.option(
    "--sort",
    type=click.Choice(get_args(Sort)),
    help="What comes first in tables: the heads with the largest effect or write on any token, with the largest gain of the lens over "
    "the mean output, with the lowest KL, or that move the first --token most; or layer by layer.  "
    "[default: effect, written, gain, kl: the first that is known]",
)
@click.option(
    "--all",
    "all_heads",
    is_flag=True,
    help="Show all heads in tables, and not the first 20 (6 at each of several positions). --json and --html always have all.",
)
@click.option(
    "--details/--lines",
    default=None,
    help="Show full lists of each head, or one line.  [default: full lists of up to 6 heads, else lines]",
)
@store_of_fit_option
@model_options
@json_option
@config_option
def command(
    lenses: Path,
    prompts: tuple[str, ...],
    chat: tuple[Path, ...],
    role: Role | None,
    layers: tuple[int, ...] | None,
    heads: tuple[int, ...] | tuple[str, ...] | None,
    top: int,
    position: str | None,
    rank: Rank | None,
    min_probability: float,
    tokens: tuple[str, ...],
    first_token: bool,
    compare: str | None,
    effect: Path | None,
    store: Path | None,
    attention: Looks,
    page: Path | None,
    sort: Sort | None,
    all_heads: bool,
    details: bool | None,
    model: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Show the top tokens of each head of LENSES on each PROMPT.

    The model runs once for each prompt. A lens says what can be predicted from a head; beside it stand the tokens that the
    head raises and lowers by what it writes, in logits. The model's own next tokens stand above all heads, by
    probability. Each token of a lens has its probability and its lift, which is that probability divided by the token's
    share of the model's mean output. KL is KL(model, head) in nats; 0 means that the head's reading is the model's
    output.
    """
    from alens.pictures import reading_page

    if compare == "effect" and effect is None:
        raise RequestError("--compare effect needs effect lenses: name them with --effect")
    places = _positions(("last" if page is None else "all") if position is None else position)
    if page is not None:
        reading_page.check_path(page)
    with watching() as report:
        with starting():
            from alens.lens.effect_lenses import load_effect_lenses
            from alens.lens.lenses import load_lenses
            from alens.reading import own_moments, worth_reading
            from alens.reading.head_reader import HeadReader
            from alens.reading.prompts import given_prompts, text_of
            from alens.reading.ranking import ranking

            asked = given_prompts(prompts, chat, role)
            opened = load_lenses(lenses)
            opened.chosen(layers, heads, report)
            ranking(
                rank,
                top,
                min_probability,
                has_lift=opened.log_mean_output() is not None,
                vocabulary=opened.record.model.d_vocab,
            )  # refuses before the model is loaded, not after
            if rank is not None:
                own_moments.check(opened, opened.chosen(layers, heads), rank)
            effects = None if effect is None else load_effect_lenses(effect)
            reader = HeadReader(
                opened, model=model, store=store, effect=effects, device=device, report=report
            )
        no_write = reader.writes.lacking(opened.chosen(layers, heads))
        if no_write is not None and reader.no_unembedding is None:  # else a line said so
            log.warning("%s: what heads write is left out", no_write)
        terms = reader.terms(tokens, first_token=first_token)
        worth_reading.check(
            sort,
            has_effects=effect is not None,
            no_write=no_write,
            has_mean=reader.log_mean_V is not None,
            terms=bool(terms),
        )
        if page is not None:
            from alens.reading.page_reader import read_page

            numbers = read_page(
                reader,
                asked,
                layers=layers,
                heads=heads,
                positions=places,
                top=top,
                rank=rank,
                min_probability=min_probability,
                terms=terms,
                unembedding=compare in ("unembedding", "all"),
                report=report,
            )
            num_bytes = reading_page.write_page(page, numbers.to_json())
        readings = []
        if page is None or as_json:
            readings = [
                reader.read(
                    prompt,
                    layers=layers,
                    heads=heads,
                    positions=range(len(reader.tokens(text_of(reader, prompt)[0])))
                    if places is None
                    else places,
                    top=top,
                    rank=rank,
                    min_probability=min_probability,
                    terms=terms,
                )
                for prompt in asked
            ]
    if page is not None:
        tell(f"wrote {page} ({size(num_bytes)}): open it in a browser")
        if not as_json:
            return
    if as_json:
        show_json([reading.to_json() for reading in readings])
        return
    from alens.cli.read_table import Screen, show_reading

    columns = _columns(compare, no_write, effect is not None, reader.no_unembedding is None)
    screen = Screen(columns=columns, looks=attention, sort=sort, all_heads=all_heads, details=details)
    for reading in readings:
        show_reading(reading, opened.record.model.id, screen)


def _columns(compare: str | None, no_write: str | None, has_effects: bool, unembeds: bool) -> list[str]:
    """The lists that `--compare` asks for, as far as they can be had."""
    from alens.cli.read_details import EFFECT, LENS, UNEMBEDDING, WRITTEN

    by_default = compare is None
    if compare is None:
        compare = "written" if no_write is None else "unembedding"
    columns = [LENS]
    if compare in ("written", "all") and no_write is None:
        columns += WRITTEN
    if (by_default or compare in ("effect", "all")) and has_effects:
        columns += EFFECT
    if compare in ("unembedding", "all") and unembeds:
        columns.append(UNEMBEDDING)
    return columns


def _positions(text: str) -> list[int] | None:
    """Positions from `--position`; None for all."""
    if text == "all":
        return None
    if text == "last":
        return [-1]
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise RequestError(
            f"position {text!r} is not a list of numbers such as 0,2 or -1, nor `last` or `all`"
        ) from None
