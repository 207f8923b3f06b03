"""The page of `alens read --html`: a grid of layers and heads, and the lists of the head that was clicked.

In: a `PageData` (`alens.reading.page_data`) as plain values. Out: one HTML file that loads nothing. Its style, script and
body stand beside this module, as reading_page.css, reading_page.js and reading_page.body.html.
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from alens.pictures.page import page
from alens.store import result_file

SUFFIX = ".html"


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
    folder = files("alens.pictures")
    style, script, body = (
        folder.joinpath(f"reading_page.{suffix}").read_text(encoding="utf-8")
        for suffix in ("css", "js", "body.html")
    )
    return page(title=f"Heads of {numbers['model']}", body=body, style=style, script=script, data=numbers)
