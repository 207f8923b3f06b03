"""A grid of heads in colours: a PNG for papers, an HTML table for reading.

In: a `HeadGrid`. Out: a PNG or HTML file.
"""

import html
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alens.pictures import png
from alens.pictures.head_grid import HeadGrid
from alens.pictures.numbers import significant
from alens.pictures.page import page
from alens.store import result_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".html")
MOST_VALUES_WRITTEN = 400
"""From this number of cells on, those of a PNG have no room for their number."""

LEAST_WIDTH, LEAST_HEIGHT = 5.0, 3.0
"""In inches: the title of a grid of one head, and the label of its colours, need the room of several."""

TITLE_CHARACTERS = 11
"""Characters of a line of the title, for each inch of the picture's width."""

NOTE_CHARACTERS = 40
"""Characters of a line beside the colours at most: the picture may be low."""

STYLE = """\
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { font-weight: 600; padding: .3rem .5rem; color: var(--quiet); text-align: right; }
td { padding: .35rem .5rem; text-align: right; white-space: nowrap; border: 1px solid var(--ground); }
td.marked { font-weight: 700; text-decoration: underline; }
"""


def check_path(path: Path) -> None:
    """Raises `RequestError` unless a heat map can be written there; to be called before the work."""
    result_file.check(path, SUFFIXES, "a heat map is")


def write(path: Path, grid: HeadGrid) -> None:
    """Write the file whole, in the form that its suffix names.

    Raises `RequestError` for a path that cannot be a heat map, `RunError` where the disk refuses.
    """
    check_path(path)
    result_file.write(path, to_png(grid) if path.suffix == ".png" else to_html(grid).encode())


def to_png(grid: HeadGrid) -> bytes:
    """The picture, drawn by matplotlib."""
    num_rows, num_columns = grid.values_LH.shape
    width, height = (0.6, 0.45) if _has_room(grid) else (0.2, 0.2)  # inches a cell: 144 heads fit on a screen
    inches = max(LEAST_WIDTH, 2.2 + width * num_columns)
    figure = png.figure(inches, max(LEAST_HEIGHT, 1.4 + height * num_rows))
    _draw(figure, grid, inches)
    return png.content(figure)


def _has_room(grid: HeadGrid) -> bool:
    """Whether each cell of a picture can hold its number."""
    return grid.values_LH.size <= MOST_VALUES_WRITTEN


def _draw(figure: "Figure", grid: HeadGrid, inches: float) -> None:
    """Cells, numbers where there is room for them, and the scale of colours; the figure is `inches` wide."""
    has_room = _has_room(grid)
    axes = figure.add_subplot()
    colours, norm = _colours(grid)
    image = axes.imshow(np.ma.masked_invalid(grid.values_LH), cmap=colours, norm=norm, aspect="auto")
    names = [png.plain(name) for name in grid.column_names]
    axes.set_xticks(range(len(names)), names, rotation=0 if has_room else 90)
    axes.set_yticks(range(len(grid.rows)), [png.plain(name) for name in grid.row_names])
    axes.set_xlabel(grid.across)
    axes.set_ylabel(grid.row_title)
    title = png.plain(textwrap.fill(grid.title, int(TITLE_CHARACTERS * inches)))
    axes.set_title(title, fontsize="medium", loc="left")
    if grid.is_empty:
        axes.text(0.5, 0.5, "no figures", transform=axes.transAxes, ha="center", va="center")
        return
    for y, row in enumerate(grid.rows):
        for x, column in enumerate(grid.columns):
            value = grid.values_LH[y, x]
            text = grid.text((row, column), significant) if has_room else grid.sign((row, column))
            if np.isfinite(value):
                colour = _ink(colours(norm(value)))
                axes.text(x, y, text, ha="center", va="center", fontsize="small", color=colour)
    label = grid.number_title + (f"\n* {grid.mark_title}" if grid.mark_title else "")
    if grid.silence:
        label += "\n" + textwrap.fill(grid.silence, NOTE_CHARACTERS)
    figure.colorbar(image, ax=axes, label=png.plain(label))


def to_html(grid: HeadGrid) -> str:
    """A page with a table. Every number stands in its cell, so that nothing is shown by colour alone."""
    names = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in grid.column_names)
    rows = "\n".join(
        f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>'
        for name, cells in zip(grid.row_names, _cells(grid), strict=True)
    )
    notes = [
        grid.number_title,
        f"Underlined: {grid.mark_title}" if grid.mark_title else "",
        grid.silence,
        "No figures" if grid.is_empty else "",
    ]
    body = (
        f"<h1>{html.escape(grid.title)}</h1>\n"
        f'<p class="quiet">{html.escape(" ".join(f"{note}." for note in notes if note))}</p>\n'
        f'<div class="scroll" tabindex="0"><table>\n<thead><tr><th>{html.escape(grid.row_title)} \\ {html.escape(grid.across)}</th>{names}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )
    return page(title=grid.title, body=body, style=STYLE)


def _cells(grid: HeadGrid) -> Iterator[str]:
    """The cells of each row as HTML."""
    colours, norm = _colours(grid)
    for row, values_H in zip(grid.rows, grid.values_LH, strict=True):
        cells = []
        for column, value in zip(grid.columns, values_H, strict=True):
            if not np.isfinite(value):
                cells.append("<td></td>")
                continue
            colour, place = colours(norm(value)), (row, column)
            marked = " class=marked" if place in grid.marked else ""
            style = f"background:{_css(colour)};color:{_ink(colour)}"
            cells.append(f'<td{marked} style="{style}">{significant(value)}{grid.sign(place)}</td>')
        yield "".join(cells)


def _colours(grid: HeadGrid) -> tuple[Any, Any]:
    """A colour map, and what brings a value to 0 .. 1."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    finite = grid.values_LH[np.isfinite(grid.values_LH)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if grid.centre is not None:
        reach = max(abs(low - grid.centre), abs(high - grid.centre)) or 1.0
        return colormaps["RdBu_r"], Normalize(grid.centre - reach, grid.centre + reach)
    return colormaps["viridis"], Normalize(low, high if high > low else low + 1.0)


def _ink(colour: Any) -> str:
    """Black or white, whichever has more contrast on a colour, by WCAG 2; at least 4.5 on any."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in map(float, colour[:3])]
    light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (light + 0.05) / 0.05 > 1.05 / (light + 0.05) else "#ffffff"


def _css(colour: Any) -> str:
    from matplotlib.colors import to_hex

    return str(to_hex(colour))
