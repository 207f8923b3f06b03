"""Figures of matplotlib as PNG files, without a display and without global state.

In: a size, then a drawn figure. Out: the bytes of the file.
"""

import io
from typing import TYPE_CHECKING

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
    """A `$` would begin a formula, and what is none would be an error."""
    return text.replace("$", r"\$")


def content(drawn: "Figure") -> bytes:
    """The file: as large as what was drawn, so that a title wider than a small figure is not cut off."""
    out = io.BytesIO()
    drawn.savefig(out, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": "alens"})
    return out.getvalue()
