"""Figures as a grid of colours: a PNG for papers, an HTML table for reading.

In: a `HeatMap`: numbers by row and column, such as layer and head. Out: a PNG or HTML file.
"""

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from alens.lens.marks import MEANING, SAYS_NOTHING, SIGN
from alens.pictures import png
from alens.pictures.page import page
from alens.store import result_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".html")
MOST_VALUES_WRITTEN = 400
"""Cells in a PNG that still have room for their number."""

LEAST_WIDTH, LEAST_HEIGHT = 5.0, 3.0
"""Inches: the title of one head, and the label of its colours, need the room of several."""

TITLE_CHARACTERS = 11
"""Of a title's line, for each inch of the picture's width."""

NOTE_CHARACTERS = 40
"""The most characters of a line beside the colours: the picture may be low."""

STYLE = """\
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { font-weight: 600; padding: .3rem .5rem; color: var(--quiet); text-align: right; }
td { padding: .35rem .5rem; text-align: right; border: 1px solid var(--ground); }
td.marked { font-weight: 700; text-decoration: underline; }
"""


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """What is drawn."""

    title: str
    values: npt.NDArray[np.float64]
    """(rows, columns); a number that is not finite is drawn as nothing."""
    rows: Sequence[str]
    columns: Sequence[str]
    row_title: str
    column_title: str
    colour_title: str
    """What the numbers are, with their unit."""
    centre: float | None = None
    """Where the colours change sides, such as 0 for differences; None: from the lowest to the highest."""
    marks: npt.NDArray[np.bool_] | None = None
    """(rows, columns): cells that are set off, such as significant ones."""
    mark_title: str = ""
    """What a mark means."""
    nothing: npt.NDArray[np.bool_] | None = None
    """(rows, columns): lenses that say nothing (`alens.lens.marks`)."""

    def signs(self, row: int, column: int) -> str:
        """What stands behind the number of a cell."""
        marked = self.marks is not None and self.marks[row, column]
        return ("*" if marked else "") + self.sign(row, column)

    def sign(self, row: int, column: int) -> str:
        """That of a lens that says nothing, or none."""
        return SIGN if self.nothing is not None and self.nothing[row, column] else ""

    @property
    def nothing_title(self) -> str:
        """What that sign means, where any cell has it."""
        any_cell = self.nothing is not None and self.nothing.any()
        return f"{SIGN} {SAYS_NOTHING}: {MEANING}" if any_cell else ""


def check_path(path: Path) -> None:
    """Raises `RequestError` unless a heat map can have that name: told before the work, not after it."""
    result_file.check(path, SUFFIXES, "a heat map is")


def write(path: Path, heat_map: HeatMap) -> None:
    """Write the file whole, in the form of its suffix. Raises `RequestError`, `RunError` where the disk refuses."""
    check_path(path)
    result_file.write(path, to_png(heat_map) if path.suffix == ".png" else to_html(heat_map).encode())


def to_png(heat_map: HeatMap) -> bytes:
    """The picture, by matplotlib."""
    num_rows, num_columns = heat_map.values.shape
    written = num_rows * num_columns <= MOST_VALUES_WRITTEN
    width, height = (0.6, 0.45) if written else (0.2, 0.2)  # inches a cell: 144 heads fit on a screen
    inches = max(LEAST_WIDTH, 2.2 + width * num_columns)
    figure = png.figure(inches, max(LEAST_HEIGHT, 1.4 + height * num_rows))
    _draw(figure, heat_map, inches)
    return png.content(figure)


def _draw(figure: "Figure", heat_map: HeatMap, inches: float) -> None:
    """Cells, numbers where there is room for them, and the scale of colours; `inches` are the figure's width."""
    num_rows, num_columns = heat_map.values.shape
    written = num_rows * num_columns <= MOST_VALUES_WRITTEN
    axes = figure.add_subplot()
    colours, norm = _colours(heat_map)
    image = axes.imshow(np.ma.masked_invalid(heat_map.values), cmap=colours, norm=norm, aspect="auto")
    axes.set_xticks(
        range(num_columns), [png.plain(name) for name in heat_map.columns], rotation=0 if written else 90
    )
    axes.set_yticks(range(num_rows), [png.plain(name) for name in heat_map.rows])
    axes.set_xlabel(heat_map.column_title)
    axes.set_ylabel(heat_map.row_title)
    axes.set_title(
        png.plain(textwrap.fill(heat_map.title, int(TITLE_CHARACTERS * inches))),
        fontsize="medium",
        loc="left",
    )
    if not np.isfinite(heat_map.values).any():
        axes.text(0.5, 0.5, "no figures", transform=axes.transAxes, ha="center", va="center")
        return
    for (row, column), value in np.ndenumerate(heat_map.values):
        if np.isfinite(value):
            axes.text(
                column,
                row,
                _number(value) + heat_map.signs(row, column) if written else heat_map.sign(row, column),
                ha="center",
                va="center",
                fontsize="small",
                color=_ink(colours(norm(value))),
            )
    label = heat_map.colour_title + (f"\n* {heat_map.mark_title}" if heat_map.mark_title else "")
    if heat_map.nothing_title:
        label += "\n" + textwrap.fill(heat_map.nothing_title, NOTE_CHARACTERS)
    figure.colorbar(image, ax=axes, label=png.plain(label))


def to_html(heat_map: HeatMap) -> str:
    """A page with a table; every number stands in its cell, so colour is never all that says it."""
    colours, norm = _colours(heat_map)
    corner = f"{heat_map.row_title} \\ {heat_map.column_title}"
    head = "".join(f'<th scope="col">{html.escape(str(name))}</th>' for name in heat_map.columns)
    lines = []
    for row, name in enumerate(heat_map.rows):
        cells = []
        for column in range(len(heat_map.columns)):
            value = float(heat_map.values[row, column])
            if not np.isfinite(value):
                cells.append("<td></td>")
                continue
            colour = colours(norm(value))
            marked = heat_map.marks is not None and heat_map.marks[row, column]
            classes = " class=marked" if marked else ""
            style = f"background:{_css(colour)};color:{_ink(colour)}"
            cells.append(f'<td{classes} style="{style}">{_number(value)}{heat_map.sign(row, column)}</td>')
        lines.append(f'<tr><th scope="row">{html.escape(str(name))}</th>{"".join(cells)}</tr>')
    note = f" Underlined: {heat_map.mark_title}." if heat_map.mark_title else ""
    note += f" {heat_map.nothing_title}." if heat_map.nothing_title else ""
    note += "" if np.isfinite(heat_map.values).any() else " No figures."
    body = (
        f"<h1>{html.escape(heat_map.title)}</h1>\n"
        f'<p class="quiet">{html.escape(heat_map.colour_title + "." + note)}</p>\n'
        f'<div class="scroll" tabindex="0"><table>\n<thead><tr><th>{html.escape(corner)}</th>{head}</tr></thead>\n'
        f"<tbody>\n{chr(10).join(lines)}\n</tbody></table></div>"
    )
    return page(title=heat_map.title, body=body, style=STYLE)


def _colours(heat_map: HeatMap) -> tuple[Any, Any]:
    """A colour map, and what brings a value to 0 .. 1."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    finite = heat_map.values[np.isfinite(heat_map.values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if heat_map.centre is not None:
        reach = max(abs(low - heat_map.centre), abs(high - heat_map.centre)) or 1.0
        return colormaps["RdBu_r"], Normalize(heat_map.centre - reach, heat_map.centre + reach)
    return colormaps["viridis"], Normalize(low, high if high > low else low + 1.0)


def _number(value: float) -> str:
    """Three figures, in plain digits where they fit."""
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.1e}"


def _ink(colour: Any) -> str:
    """Black or white, whichever has more contrast on a colour, by WCAG 2; at least 4.5 on any."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in map(float, colour[:3])]
    light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (light + 0.05) / 0.05 > 1.05 / (light + 0.05) else "#ffffff"


def _css(colour: Any) -> str:
    from matplotlib.colors import to_hex

    return str(to_hex(colour))
