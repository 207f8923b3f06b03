"""What the pages of an atlas say, for tests: their links, tables and rows as text."""

import html
import re
from html.parser import HTMLParser
from pathlib import Path


class Links(HTMLParser):
    """All that a page refers to. Attribute: `links`."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if name in ("href", "src", "action") and value]


def links(page: Path) -> list[str]:
    """Every reference of a page, as it stands there."""
    parser = Links()
    parser.feed(page.read_text())
    return parser.links


def text_of(markup: str) -> str:
    """The text of a piece of HTML."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", markup)).split())


def table(page: Path, caption: str) -> list[list[str]]:
    """The cells of the table with this caption, or that begins with this heading, as text."""
    for block in re.findall(r"<table.*?</table>", page.read_text(), re.DOTALL):
        if text_of(block).startswith(caption):
            body = block.partition("<tbody>")[2]
            return [
                [text_of(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
                for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
            ]
    raise AssertionError(f"no table {caption!r} in {page}")
