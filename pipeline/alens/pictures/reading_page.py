"""The page of `alens read --html`: a grid of layers and heads, and the lists of the head that was clicked.

In: a `PageData` (`alens.reading.page_data`) as plain values. Out: one HTML file that loads nothing. Its body, style and
scripts stand in page_parts. They take the names of elements and the colours of a whole document for themselves, so in a
notebook each page needs a frame of its own (an iframe with `srcdoc`); there, too, it works without an address.
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from alens.pictures.page import page
from alens.store import result_file

SUFFIX = ".html"

SCRIPTS = "sheet", "ramps", "colours", "prompt", "grids", "panel", "page"
"""One script in parts, in this order: the data, ramps of colours, scales, the prompt, the grid of each view, the lists, and what is chosen."""


def check_path(path: Path) -> None:
    """Raises `RequestError` unless a page can be written there; to be called before the work."""
    result_file.check(path, (SUFFIX,), "a page is")


def write_page(path: str | Path, numbers: Mapping[str, Any]) -> int:
    """Write the page whole, in the place of an earlier page, and give its size in bytes.

    Raises `RequestError` for a path that cannot be a page, `RunError` where the disk refuses.
    """
    path = Path(path)
    check_path(path)
    content = to_html(numbers).encode()
    result_file.write(path, content)
    return len(content)


def to_html(numbers: Mapping[str, Any]) -> str:
    """The page of these numbers."""
    folder = files("alens.pictures").joinpath("page_parts")
    names = ("body.html", "style.css", *(f"{name}.js" for name in SCRIPTS))
    body, style, *scripts = (folder.joinpath(name).read_text(encoding="utf-8") for name in names)
    script = "".join(scripts)
    return page(title=f"Heads of {numbers['model']}", body=body, style=style, script=script, data=numbers)
