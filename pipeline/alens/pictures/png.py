"""Figures of matplotlib as PNG files, without a display and without global state.

In: a size, then a drawn figure. Out: the bytes of the file.
"""

import io
import warnings
from typing import TYPE_CHECKING

from alens.printable import printable_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 160


def figure(width: float, height: float) -> "Figure":
    """An empty figure, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(found)
    return found


def plain(text: str) -> str:
    """A `$` would begin a formula, and what is none would be an error; a control character has no glyph."""
    return printable_lines(text).replace("$", r"\$")


def content(drawn: "Figure") -> bytes:
    """The file: as large as what was drawn, so that a title wider than a small figure is not cut off."""
    out = io.BytesIO()
    with (
        warnings.catch_warnings()
    ):  # a letter that the font lacks is a box in a title: no reason for a line each
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        drawn.savefig(out, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": "alens"})
    return out.getvalue()
