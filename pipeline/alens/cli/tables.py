"""The form of every table, drawn by rich: numbers stay whole, and a text is shown as it is, whoever wrote it.

In: headings, and rows of cells. Out: what a terminal shows, or plain lines where there is none. Rich takes `[red]`
and `:smile:` for markup, and passes escapes on; here markup is plain text, and escapes are made visible. Rich is slow
to import: commands import this module when they draw.
"""

import os
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment
from rich.table import Table

from alens.cli.console import LossyStream
from alens.printable import printable_lines

if TYPE_CHECKING:
    from alens.pictures.head_grid import HeadGrid

LOG_WIDTH = 120
"""Characters of a line where no terminal says how wide it is."""

BETWEEN = 2
"""Spaces between two columns."""

LEAST_TEXT = 16
"""Characters of a column of words at least, where it has so many."""


class Pieces(list[str]):
    """A cell of one line: as many pieces, such as tokens, as its column has room for. None is cut."""


class AllPieces(Pieces):
    """A cell of as many lines as its pieces need, with commas between them. None is cut or split."""


Cell = str | tuple[str, ...] | Pieces
"""A text of one line or more, or parts: side by side where the table has room for it, else one above the other."""


def show_table(
    headings: Sequence[Cell],
    rows: Iterable[Sequence[Cell]],
    *,
    title: str = "",
    text: Collection[str] = (),
    foot: Sequence[Sequence[Cell]] = (),
    spaced: bool = False,
) -> None:
    """Print a table under its title, and an empty line.

    Columns hold numbers, which stand at the right and are never cut or folded; those whose heading is in `text` hold
    words, stand at the left and may be folded, or `Pieces`. `foot` are rows below a line; `spaced` puts a line between rows. A table
    that is too wide for the terminal is drawn all the same: no number is lost.
    """
    shown = console()
    lines: list[list[Cell]] = [list(headings), *map(list, rows), *map(list, foot)]
    is_text = [heading in text for heading in _joined(lines[:1], " ")[0]]
    of_pieces = {c for line in lines for c, cell in enumerate(line) if isinstance(cell, Pieces)}
    _fill(lines, of_pieces, shown.width)
    folds = [is_words and c not in of_pieces for c, is_words in enumerate(is_text)]
    laid_out = _joined(lines, " ")
    if _width(laid_out) > shown.width:
        laid_out = _joined(lines, "\n")
    if (least := _width(laid_out, folds)) > shown.width:
        shown = console(width=least)
    drawn = Table(box=SIMPLE, show_edge=False, pad_edge=False, collapse_padding=True, show_lines=spaced)
    for heading, is_words, may_fold in zip(laid_out[0], is_text, folds, strict=True):
        drawn.add_column(
            heading, justify="left" if is_words else "right", no_wrap=not may_fold, overflow="fold"
        )
    for number, line in enumerate(laid_out[1:], start=1):
        if foot and number == len(laid_out) - len(foot):
            drawn.add_section()
        drawn.add_row(*line)
    if title:
        shown.print(title)
    with shown.capture() as captured:
        shown.print(drawn)
    # rich fills lines with spaces to the width of the table; what was drawn is escaped already, and its styles are rich's
    shown.file.write("\n".join(line.rstrip() for line in captured.get().split("\n")) + "\n")
    shown.file.flush()


def show_grid(
    grid: "HeadGrid",
    number: Callable[[float], str],
    *,
    title: str = "",
    foot: Sequence[Sequence[Cell]] = (),
) -> None:
    """Print a grid of heads: a line for each row, its numbers as `number` writes them. `title` replaces its own."""
    show_table(
        (f"{grid.row_title} \\ {grid.across}", *grid.column_names),
        [(name, *cells) for name, cells in zip(grid.row_names, grid.texts(number), strict=True)],
        title=title or grid.title,
        foot=foot,
    )


def show_pieces(lead: str, pieces: Sequence[str]) -> None:
    """Print a line of words and pieces, with commas between these; no piece is split where the line is too long."""
    shown = console(soft_wrap=True)
    words = pieces if not pieces else [f"{lead} {pieces[0]}", *pieces[1:]]
    shown.print(_in_lines(words or [lead], shown.width - BETWEEN).replace("\n", "\n  "))


def fits(lines: Sequence[Sequence[str]]) -> bool:
    """Whether a table of these lines, headings first, is no wider than the terminal."""
    return _width(lines) <= console().width


def _fill(lines: list[list[Cell]], columns: Collection[int], width: int) -> None:
    """Columns of pieces share the width that the others leave; each takes what it needs at most."""
    others = [[cell for c, cell in enumerate(line) if c not in columns] for line in lines]
    left = width - BETWEEN * len(columns) - (_width(_joined(others, " ")) if others[0] else 0)
    needed = {c: max(cell_len(_text(line[c], " ")) for line in lines) for c in columns}
    for number, c in enumerate(sorted(columns, key=lambda c: needed[c])):
        room = max(LEAST_TEXT, left // (len(columns) - number))
        left -= min(room, needed[c])
        for line in lines:
            if isinstance(cell := line[c], Pieces):
                line[c] = _in_lines(cell, room) if isinstance(cell, AllPieces) else _as_fit(cell, room)


def _as_fit(pieces: Sequence[str], room: int) -> str:
    """As many pieces as fit, and the first one always."""
    text = "".join(pieces[:1])
    for piece in pieces[1:]:
        if cell_len(text) + 1 + cell_len(piece) > room:
            break
        text += f" {piece}"
    return text


def _in_lines(pieces: Sequence[str], room: int) -> str:
    """All pieces, in lines of this room."""
    lines = [""]
    for number, piece in enumerate(pieces, start=1):
        text = piece if number == len(pieces) else f"{piece},"
        if lines[-1] and cell_len(lines[-1]) + 1 + cell_len(text) > room:
            lines.append("")
        lines[-1] += f" {text}" if lines[-1] else text
    return "\n".join(lines)


def _text(cell: Cell, joint: str) -> str:
    return cell if isinstance(cell, str) else joint.join(cell)


def _joined(lines: Sequence[Sequence[Cell]], joint: str) -> list[list[str]]:
    """The parts of each cell, joined."""
    return [[_text(cell, joint) for cell in line] for line in lines]


def _width(lines: Sequence[Sequence[str]], folds: Sequence[bool] | None = None) -> int:
    """Characters of a table across; columns that fold are folded as far as can be read."""
    widths = []
    for c, cells in enumerate(zip(*lines, strict=True)):
        whole = max(cell_len(part) for cell in cells for part in cell.split("\n"))
        widths.append(min(whole, LEAST_TEXT) if folds and folds[c] else whole)
    return sum(widths) + BETWEEN * (len(widths) - 1)


def console(*, stderr: bool = False, width: int | None = None, soft_wrap: bool = False) -> Console:
    """A console on standard output, or on standard error.

    Without `width` it is as wide as the terminal; where there is none, as COLUMNS says, else LOG_WIDTH.
    """
    stream = sys.stderr if stderr else sys.stdout
    if width is None and not stream.isatty() and "COLUMNS" not in os.environ:
        width = LOG_WIDTH
    drawn = Console(
        file=stream.unescaped if isinstance(stream, LossyStream) else stream,
        width=width,
        soft_wrap=soft_wrap,
        markup=False,
        emoji=False,
        highlight=False,
    )
    drawn.push_render_hook(_Escaping())
    return drawn


class _Escaping(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Escaped(one) for one in renderables]


class _Escaped:
    """What `content` renders to, without control characters of its texts; rich's own are not text, and stay."""

    def __init__(self, content: ConsoleRenderable) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        segments: Iterable[Segment] = console.render(self._content, options)
        for text, style, control in segments:
            yield Segment(text if control else printable_lines(text), style, control)
