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
    """An empty figure; width and height are in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    empty = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(empty)
    return empty


def plain(text: str) -> str:
    """A text as matplotlib can draw it: a `$` would begin a formula, and a control character has no glyph."""
    return printable_lines(text).replace("$", r"\$")


def content(drawn: "Figure") -> bytes:
    """The bytes of the file. It is as large as what was drawn, so that no title is cut off."""
    out = io.BytesIO()
    with warnings.catch_warnings():  # each letter that the font lacks would print a line
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        drawn.savefig(out, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": "alens"})
    return out.getvalue()
