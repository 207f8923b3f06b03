"""The table of `alens read` with one line a head: its figures, and the tokens that it moves most.

In: some heads of a `Reading`, at one position. Out: a table that fits the terminal; no token is split.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alens.cli.read_details import EFFECT, LENS, UNEMBEDDING, WRITTEN, name
from alens.lens import marks
from alens.pictures.numbers import UNKNOWN, fixed, percent, signed
from alens.printable import quoted
from alens.reading.worth_reading import gain, largest

if TYPE_CHECKING:
    from alens.cli.tables import Cell, Pieces
    from alens.reading.result import HeadReading, Reading, Written

MOST, KNOWN = 4, 2
"""Tokens of a list at most, and of these, tokens that the head knows and suppresses."""

EFFECT_FIGURE, WRITE_FIGURE = "effect", "write"
"""Headings of the logit that a head moves most."""


def chosen_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """Those that a line has room for: what the head does where it is shown, else what its lens lists."""
    for pair in (EFFECT, WRITTEN):
        if pair[0] in columns:
            return pair
    return tuple(columns)


def show_lines(reading: "Reading", heads: "Sequence[HeadReading]", columns: Sequence[str]) -> None:
    """Print a line for each of these heads, with these lists."""
    from alens.cli.tables import show_table

    figure = {EFFECT[0]: EFFECT_FIGURE, WRITTEN[0]: WRITE_FIGURE}.get(columns[0])
    figures = ["head", "KL", "gain", *([figure] if figure else [])]
    terms = [quoted(term.term) for term in heads[0].lens_terms]
    rows: list[tuple[Cell, ...]] = []
    for head in heads:
        added = {EFFECT_FIGURE: head.effect, WRITE_FIGURE: head.written}.get(figure or "")
        knows = marks.KNOWN_SIGN if added is not None and added.suppressed else ""
        rows.append(
            (
                f"{name(reading, head)}{knows}",
                fixed(head.lens_kl, 2),
                signed(gain(head, reading.mean_output_kl[head.position]), 2),
                *([signed(largest(added), 2)] if figure else []),
                *_terms(head, figure),
                *(_tokens(head, added, column) for column in columns),
            )
        )
    lists = [column.removeprefix("effect ") for column in columns]
    show_table((*figures, *terms, *lists), rows, text=lists)


def _terms(head: "HeadReading", figure: str | None) -> list[str]:
    """What the head does to each chosen term: its logit, else the probability that the lens gives it."""
    if figure is None:
        return [percent(term.probability) for term in head.lens_terms]
    moved = head.effect_terms if figure == EFFECT_FIGURE else head.written_terms
    return [signed(term.logit, 2) for term in moved] or [UNKNOWN] * len(head.lens_terms)


def _tokens(head: "HeadReading", added: "Written | None", column: str) -> "Pieces":
    """The first tokens of a list; of those that are lowered, the ones that the head knows and suppresses come first."""
    from alens.cli.tables import Pieces

    if column in (LENS, UNEMBEDDING):
        return Pieces(quoted(one.token) for one in (head.lens if column == LENS else head.unembedding)[:MOST])
    if added is None:
        return Pieces([UNKNOWN])
    if column in (WRITTEN[0], EFFECT[0]):
        return Pieces(quoted(one.token) for one in added.raised[:MOST])
    known = added.suppressed[:KNOWN]
    ids = {one.id for one in known}
    others = [quoted(one.token) for one in added.lowered if one.id not in ids]
    return Pieces([*(f"{marks.KNOWN_SIGN}{quoted(one.token)}" for one in known), *others][:MOST])
