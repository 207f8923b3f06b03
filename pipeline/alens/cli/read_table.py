"""What `alens read` prints: a summary, the model's own list, then the heads worth a look, a line each or with full lists.

In: a `Reading`. Out: lines and a table for each position. A screenful, unless more is asked for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from alens.cli.console import show
from alens.cli.read_details import EFFECT, RAISES, entry, notes, show_details
from alens.cli.read_lines import EFFECT_FIGURE, WRITE_FIGURE, chosen_columns, show_lines
from alens.cli.screenful import SCREENFUL, order_said
from alens.lens import marks
from alens.pictures.numbers import fixed, number_of
from alens.reading import worth_reading
from alens.reading.result import HeadReading, Reading
from alens.reading.settings import Looks, Sort, suppression

FEW = 6
"""So many heads are shown with their full lists unless told otherwise, and as many at each of several positions."""

SORTED = {
    "effect": "the largest effect on a token",
    "written": "the largest write on a token",
    "gain": "what the lens gains over the mean output",
    "kl": "KL, the lowest first",
    "token": "what is moved on the first --token",
    "layer": "layer and head",
}
"""What heads are sorted by, in words."""


@dataclass(frozen=True, kw_only=True)
class Screen:
    """How much of a reading is printed, and in which order."""

    columns: Sequence[str]
    """Lists of the full table, such as LENS, *WRITTEN."""
    looks: Looks
    sort: Sort | None
    """None: as `worth_reading.default_sort` says."""
    all_heads: bool
    details: bool | None
    """Full lists. None: of few heads."""


def show_reading(reading: Reading, model: str, screen: Screen) -> None:
    """Print a reading of this model."""
    from alens.cli.tables import console

    read = {(head.layer, head.head) for head in reading.heads}
    details = len(read) <= FEW if screen.details is None else screen.details
    sort = worth_reading.default_sort(reading) if screen.sort is None else screen.sort
    columns = screen.columns if details else chosen_columns(screen.columns)
    most = len(read) if screen.all_heads else SCREENFUL if len(reading.positions) == 1 else FEW
    seen: list[HeadReading] = []
    for position in reading.positions:
        heads = worth_reading.in_order(reading, position, sort)
        _show_head(reading, model, position, heads)
        if details:
            show_details(reading, heads[:most], columns, screen.looks)
        else:
            show_lines(reading, heads[:most], columns)
        seen += heads[:most]
    shown = console()
    hidden = len(read) - min(most, len(read))
    if len(read) > 1:
        lists = () if details else ("full lists: --details",)
        shown.print(order_said(SORTED[sort], hidden, len(read), *lists, sort=sort, sorts=get_args(Sort)))
    for note in notes(reading, columns, screen.looks) if details else _notes(seen, columns):
        shown.print(note)
    nothing = dict.fromkeys((head.layer, head.head) for head in seen if head.says_nothing)
    if details and (meaning := marks.note(nothing)):
        show(meaning)


def _show_head(reading: Reading, model: str, position: int, heads: Sequence[HeadReading]) -> None:
    """What stands above a table: the place, the model's own list, and how many heads say something."""
    from alens.cli.tables import console, show_pieces

    mean_kl = reading.mean_output_kl[position]
    console().print(f"{model}, position {position}, after {reading.before[position]!r}")
    show_pieces(
        f"the model's next token, entropy {fixed(reading.model_entropy[position], 2)} nats:",
        [" ".join(entry(score)) for score in reading.model[position]],
    )
    show(*(f"* {' '.join(entry(term))}" for term in reading.model_terms[position]))
    show(f"the mean output, which looks at nothing: KL {fixed(mean_kl, 2)} nats")
    show_pieces(f"{number_of(len(heads), 'head')}:", list(_counts(heads, mean_kl)))
    show("")


def _counts(heads: Sequence[HeadReading], mean_kl: float | None) -> Iterator[str]:
    """How many heads say something, and what."""
    saying = [head for head in heads if not head.says_nothing]
    yield f"{len(saying)} with a lens that says something"
    if mean_kl is not None:
        yield f"{sum(head.lens_kl < mean_kl for head in saying)} with one below the mean output here"
    added = [head.effect or head.written for head in heads]
    if any(added):
        yield f"{sum(bool(one and one.suppressed) for one in added)} with tokens known and suppressed"


def _notes(heads: Sequence[HeadReading], columns: Sequence[str]) -> Iterator[str]:
    """How to read a line."""
    yield "KL(model, lens) in nats; gain: how far it is below that of the mean output."
    if columns[0] in (RAISES, EFFECT[0]):
        figure = EFFECT_FIGURE if columns[0] == EFFECT[0] else WRITE_FIGURE
        yield f"{figure}: the logit that the head moves most, centred over the vocabulary; its token is the first of its list."
    if any(head.says_nothing for head in heads):
        yield f"{marks.SIGN} {marks.SAYS_NOTHING}: {marks.MEANING}"
    if any(one is not None and one.suppressed for head in heads for one in (head.effect, head.written)):
        yield f"{marks.KNOWN_SIGN} {marks.SUPPRESSES}: {suppression()}"
