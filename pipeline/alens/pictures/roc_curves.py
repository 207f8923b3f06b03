"""ROC curves as a PNG.

In: curves by name, each from (0, 0) to (1, 1). Out: a PNG file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from alens.pictures import png
from alens.store import result_file

Curve = tuple[Sequence[float], Sequence[float]]
"""False positive rates and true positive rates."""

STROKES = ("-", "--", "-.", ":")
"""Strokes by which curves can be told apart without colour."""


def check_path(path: Path) -> None:
    """Raises `RequestError` unless a ROC curve can be written there; to be called before the work."""
    result_file.check(path, (".png",), "a ROC curve is")


def write(path: Path, title: str, curves: Mapping[str, Curve]) -> None:
    """Write the file whole. Raises `RequestError` for a path that cannot be a ROC curve, `RunError` where the disk refuses."""
    check_path(path)
    result_file.write(path, to_png(title, curves))


def to_png(title: str, curves: Mapping[str, Curve]) -> bytes:
    """The picture, drawn by matplotlib: curves are steps, as there is nothing between two thresholds."""
    figure = png.figure(5.6, 5.0)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="chance")
    for number, (name, (false, true)) in enumerate(curves.items()):
        axes.plot(false, true, STROKES[number % len(STROKES)], label=name, drawstyle="steps-post")
    axes.set_xlabel("false positive rate: clean prompts that raise an alarm")
    axes.set_ylabel("true positive rate: suspect prompts found")
    axes.set_title(title, fontsize="medium", loc="left")
    axes.set_aspect("equal")
    axes.legend(loc="lower right", fontsize="small")
    return png.content(figure)
