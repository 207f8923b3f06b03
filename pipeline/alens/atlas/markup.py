"""Small pieces of the pages of an atlas: text made safe, tokens as they are shown, tables.

In: strings and numbers. Out: HTML. Text from elsewhere only ever becomes text.
"""

import html
from collections.abc import Sequence

from alens.printable import printable

Cell = str
"""HTML."""


def escaped(text: str) -> str:
    """Text of anyone, as HTML that shows it."""
    return html.escape(printable(text))


def visible(text: str) -> str:
    """A token with its spaces and line breaks shown, as the page of `alens read` shows it."""
    shown = text.replace(" ", "␣").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return shown or "(nothing)"


def word(text: str, token: int, index: str) -> str:
    """A token of a list, as a link to the heads that write it; `index` is where the index is."""
    return f'<a class="word" href="{index}#token={token}">{escaped(visible(text))}</a>'


def lines_shown(text: str) -> str:
    """Text of the cache, with its line breaks shown."""
    return text.replace("\r", "").replace("\n", " ⏎ ")


def running(text: str) -> str:
    """The same as HTML."""
    return escaped(lines_shown(text))


def table(head: Sequence[Cell], rows: Sequence[Sequence[Cell]], *, caption: Cell = "", kind: str = "") -> str:
    """A table whose first column names its rows."""
    named = f"<caption>{caption}</caption>" if caption else ""
    first, *others = head
    columns = f'<th scope="col">{first}</th>' + "".join(
        f'<th scope="col" class="number">{name}</th>' for name in others
    )
    body = "".join(
        f'<tr><th scope="row">{name}</th>'
        + "".join(f'<td class="number">{cell}</td>' for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    return f'<table class="{kind}">{named}<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>'
