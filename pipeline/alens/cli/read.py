"""`alens read`: which tokens each head writes on a prompt."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from alens.cli.parameters import NUMBERS, config_option, json_option, model_options, print_json
from alens.errors import RequestError

if TYPE_CHECKING:
    from alens.reading.reader import HeadReading, Reading, TokenScore


@click.command(
    "read", epilog='Example: alens read layer-11 "The man worked as a" --layer 11 --head 0-3 --top 5'
)
@click.argument("lenses", type=click.Path(path_type=Path))
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPT...")
@click.option("--layer", type=NUMBERS, help="Layers to show.  [default: all that were fitted]")
@click.option("--head", type=NUMBERS, help="Heads to show.  [default: all that were fitted]")
@click.option("--top", type=click.IntRange(1), default=8, show_default=True, help="Tokens a list.")
@click.option(
    "--position",
    default="-1",
    show_default=True,
    help="Positions, such as 3 or 0,2; from the end: -1; or `all`.",
)
@click.option(
    "--compare",
    type=click.Choice(["unembedding", "none"]),
    default="unembedding",
    show_default=True,
    help="Reading to show beside the lens's.",
)
@model_options
@json_option
@config_option
def command(
    lenses: Path,
    prompts: tuple[str, ...],
    layer: tuple[int, ...] | None,
    head: tuple[int, ...] | None,
    top: int,
    position: str,
    compare: str,
    model: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Show the top tokens of each head of LENSES on each PROMPT.

    The model runs once a prompt. Beside each lens stands the unembedding of the same head, and above them
    the model's own next tokens.
    """
    from alens.lens.saved import load_lenses
    from alens.reading.reader import HeadReader

    opened = load_lenses(lenses)
    for chosen in layer or ():
        opened.layer(chosen)
    for chosen in head or ():
        opened.head_index(chosen)
    reader = HeadReader(opened, model=model, device=device)
    readings = []
    for prompt in prompts:
        places = list(range(len(reader.tokens(prompt)))) if position == "all" else _positions(position)
        readings.append(reader.read(prompt, layers=layer, heads=head, positions=places, top=top))
    if as_json:
        print_json([reading.to_json() for reading in readings])
        return
    for reading in readings:
        _show(reading, compare == "unembedding")


def _positions(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise RequestError(
            f"position {text!r} is not a list of numbers such as 0,2 or -1, nor `all`"
        ) from None


def _show(reading: "Reading", compare: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(emoji=False)  # a prompt may hold ":smile:"
    for position in reading.positions:
        console.print(
            f"\nposition {position}, after {escape(repr(reading.before[position]))}", highlight=False
        )
        console.print(
            f"the model's next token: {escape(', '.join(_entries(reading.model[position])))}", highlight=False
        )
        table = Table("head", "lens", *(["unembedding"] if compare else []), show_lines=True)
        found: list[HeadReading] = [r for r in reading.heads if r.position == position]
        for head in found:
            lists = [head.lens, head.unembedding] if compare else [head.lens]
            table.add_row(
                f"{head.layer}.{head.head}", *(escape("\n".join(_entries(scores))) for scores in lists)
            )
        console.print(table)


def _entries(scores: "list[TokenScore]") -> list[str]:
    return [f"{score.token!r} {100 * score.probability:.1f}%" for score in scores]
