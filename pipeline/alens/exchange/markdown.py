"""Text of others in Markdown: a model card and a table show it, and it cannot make a heading, a link or HTML of itself.

In: any text. Out: Markdown on one line that shows it. Names as most people give them stay as they are, so that a card
reads well as plain text, too.
"""

import re

from alens.printable import printable

_ORDINARY = re.compile(r"(?!www\.)\w[\w.,:=()\- ]*(?:/\w[\w.,:=()\- ]*)?")
"""`gpt2`, `owner/name`, `gpt2 at main, split train`: nothing of this is Markdown, and none is made a link of."""


def name(text: str) -> str:
    """A name, in a line or in a cell of a table."""
    return text if _ORDINARY.fullmatch(text) else code(text)


def code(text: str) -> str:
    """A code span: what is in it is no Markdown. Its fence is longer than any run of backticks in it."""
    shown = printable(text).replace("|", "\\|")
    if not shown.strip():
        return "` `"
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    space = " " if shown[0] in "` " or shown[-1] in "` " else ""
    return f"{fence}{space}{shown}{space}{fence}"


def sentence(text: str) -> str:
    """A sentence of alens that may quote others: without links, code, HTML or further cells."""
    return re.sub(r"[\\`\[\]<&|]", r"\\\g<0>", printable(text))
