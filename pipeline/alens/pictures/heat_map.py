"""A grid of heads in colours: a PNG for papers, an HTML table for reading.

In: a `HeadGrid`. Out: a PNG or HTML file. Colours go as far as `colour_limits` says, and cells beyond have a mark.
"""

import html
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alens.pictures import colour_limits, png
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
"""Characters of a line of the title and of notes, for each inch of the picture's width."""

BEYOND = "beyond the colours"
"""What a mark of colours says."""

STYLE = """\
body { max-width: none; }
.scroll { overflow: auto; max-height: 78vh; width: fit-content; max-width: 100%; }
table { border-collapse: separate; border-spacing: 1px; font-variant-numeric: tabular-nums; }
th { font-weight: 600; padding: .3rem .5rem; color: var(--quiet); text-align: right; background: var(--ground); }
thead th { position: sticky; top: 0; z-index: 1; }
th:first-child { position: sticky; left: 0; }
thead th:first-child { z-index: 2; }
td { padding: .3rem .5rem; text-align: right; white-space: nowrap; }
td.marked { font-weight: 700; text-decoration: underline; }
td.beyond { background-image: linear-gradient(225deg, currentColor 6px, transparent 6.6px); }
.legend { display: flex; gap: .5rem; align-items: center; max-width: 26rem; margin: .5rem 0; font-variant-numeric: tabular-nums; }
.legend i { flex: 1; height: .9rem; border: 1px solid var(--line); border-radius: .2rem; }
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
    from matplotlib.patches import Polygon

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
    below, above = _beyond(grid)
    for y, x in [*below, *above]:
        corner = [(x + 0.5, y - 0.5), (x + 0.5, y - 0.2), (x + 0.28, y - 0.5)]
        axes.add_patch(Polygon(corner, color=_ink(colours(norm(grid.values_LH[y, x]))), linewidth=0))
    notes = [
        f"* {grid.mark_title}" if grid.mark_title else "",
        f"marked corner: {BEYOND}{_furthest(grid)}" if below or above else "",
        grid.silence,
    ]
    if any(notes):
        lines = [textwrap.fill(note, int(TITLE_CHARACTERS * inches)) for note in notes if note]
        figure.supxlabel(png.plain("\n".join(lines)), fontsize="small", x=0.02, ha="left")
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[bool(below), bool(above)]
    figure.colorbar(image, ax=axes, label=png.plain(grid.number_title), extend=extend)


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
        f"Marked corner: {BEYOND}{_furthest(grid)}" if any(_beyond(grid)) else "",
        grid.silence,
        "No figures" if grid.is_empty else "",
    ]
    body = (
        f"<h1>{html.escape(grid.title)}</h1>\n"
        f'<p class="quiet">{html.escape(" ".join(f"{note}." for note in notes if note))}</p>\n'
        f"{_legend(grid)}"
        f'<div class="scroll" tabindex="0"><table>\n<thead><tr><th>{html.escape(grid.row_title)} \\ {html.escape(grid.across)}</th>{names}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )
    return page(title=grid.title, body=body, style=STYLE)


def _legend(grid: HeadGrid) -> str:
    """The scale of colours as HTML, between the numbers at its ends."""
    if grid.is_empty:
        return ""
    colours, norm = _colours(grid)
    stops = ",".join(_css(colours(step / 12)) for step in range(13))
    low, high = (significant(end) for end in (float(norm.vmin), float(norm.vmax)))
    return f'<p class="legend"><span>{low}</span><i style="background:linear-gradient(to right,{stops})"></i><span>{high}</span></p>\n'


def _cells(grid: HeadGrid) -> Iterator[str]:
    """The cells of each row as HTML."""
    colours, norm = _colours(grid)
    outside = {cell for side in _beyond(grid) for cell in side}
    for y, (row, values_H) in enumerate(zip(grid.rows, grid.values_LH, strict=True)):
        cells = []
        for x, (column, value) in enumerate(zip(grid.columns, values_H, strict=True)):
            if not np.isfinite(value):
                cells.append("<td></td>")
                continue
            colour, place = colours(norm(value)), (row, column)
            classes = [
                name for name, has in (("marked", place in grid.marked), ("beyond", (y, x) in outside)) if has
            ]
            marked = f' class="{" ".join(classes)}"' if classes else ""
            style = f"background-color:{_css(colour)};color:{_ink(colour)}"
            cells.append(f'<td{marked} style="{style}">{significant(value)}{grid.sign(place)}</td>')
        yield "".join(cells)


def _colours(grid: HeadGrid) -> tuple[Any, Any]:
    """A colour map, and what brings a value to 0 .. 1."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    ends = colour_limits.limits(grid.values_LH[np.isfinite(grid.values_LH)], grid.centre)
    return colormaps["viridis" if grid.centre is None else "RdBu_r"], Normalize(*ends, clip=True)


def _beyond(grid: HeadGrid) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Row and column, by number, of the cells below and above the scale of colours."""
    values_LH = grid.values_LH
    ends = colour_limits.limits(values_LH[np.isfinite(values_LH)], grid.centre)
    outside = [
        (y, x)
        for (y, x), value in np.ndenumerate(values_LH)
        if np.isfinite(value) and colour_limits.beyond(float(value), ends)
    ]
    return (
        [place for place in outside if values_LH[place] < ends[0]],
        [place for place in outside if values_LH[place] > ends[1]],
    )


def _furthest(grid: HeadGrid) -> str:
    """How far the numbers go, for a note."""
    finite = grid.values_LH[np.isfinite(grid.values_LH)]
    return f" ({significant(float(finite.min()))} to {significant(float(finite.max()))})"


def _ink(colour: Any) -> str:
    """Black or white, whichever has more contrast on a colour, by WCAG 2; at least 4.5 on any."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in map(float, colour[:3])]
    light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (light + 0.05) / 0.05 > 1.05 / (light + 0.05) else "#ffffff"


def _css(colour: Any) -> str:
    from matplotlib.colors import to_hex

    return str(to_hex(colour))
