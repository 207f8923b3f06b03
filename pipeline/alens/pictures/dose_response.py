"""Curves of a response against a dose, such as a probability against a strength, as a PNG.

In: axes, each with its responses. Out: a PNG file with the axes side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alens.pictures import png
from alens.store import result_file

STYLES = ("-o", "--s", ":^", "-.d")
"""Styles by which lines can be told apart without colour."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """One line: a response at each dose."""

    label: str
    values: Sequence[float]
    """One value for each dose."""
    spread: Sequence[float] | None = None
    """Standard deviations, drawn as a band around the values."""


@dataclass(frozen=True, kw_only=True)
class ResponseAxis:
    """The responses that share one axis."""

    title: str
    """The title of the axis, with the unit."""
    lines: Sequence[Response]
    level: float | None = None
    """The response at dose 0, drawn as a thin line."""


def check_path(path: Path) -> None:
    """Raises `RequestError` unless curves can be written there; to be called before the work."""
    result_file.check(path, (".png",), "curves are")


def write(
    path: Path, *, title: str, dose: str, doses: Sequence[float], panels: Sequence[ResponseAxis]
) -> None:
    """Write the file whole. Raises `RequestError`, or `RunError` where the disk refuses."""
    check_path(path)
    result_file.write(path, to_png(title=title, dose=dose, doses=doses, panels=panels))


def to_png(*, title: str, dose: str, doses: Sequence[float], panels: Sequence[ResponseAxis]) -> bytes:
    """The picture, drawn by matplotlib, with doses in rising order."""
    order = sorted(range(len(doses)), key=lambda at: doses[at])
    x = [doses[at] for at in order]
    figure = png.figure(4.6 * len(panels), 3.6)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for number, line in enumerate(panel.lines):
            y = [line.values[at] for at in order]
            axes.plot(x, y, STYLES[number % len(STYLES)], label=png.plain(line.label), markersize=4)
            if line.spread is not None:
                sd = [line.spread[at] for at in order]
                low, high = (
                    [a - b for a, b in zip(y, sd, strict=True)],
                    [a + b for a, b in zip(y, sd, strict=True)],
                )
                axes.fill_between(x, low, high, alpha=0.2, color=axes.lines[-1].get_color())
        if panel.level is not None:
            axes.axhline(panel.level, color="grey", linewidth=0.8)
        axes.set_xlabel(png.plain(dose))
        axes.set_ylabel(png.plain(panel.title))
        axes.legend(fontsize="small")
    figure.suptitle(png.plain(title), fontsize="medium")
    return png.content(figure)
