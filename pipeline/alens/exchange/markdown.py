"""Text of others, quoted in Markdown, so that it cannot become a heading, a link or HTML.

In: any text. Out: one line of Markdown that shows it. Ordinary names stay as they are, so that a model card also reads
well as plain text.
"""

import re

from alens.printable import printable

_ORDINARY = re.compile(r"(?!www\.)\w[\w.,:=()\- ]*(?:/\w[\w.,:=()\- ]*)?")
"""`gpt2`, `owner/name`, `gpt2 at main, split train`: Markdown has no meaning for these, and makes no link of them."""


def name(text: str) -> str:
    """A name, within a line or a cell of a table."""
    return text if _ORDINARY.fullmatch(text) else code(text)


def code(text: str) -> str:
    """A code span, in which Markdown has no meaning. Its fence is longer than any run of backticks within."""
    shown = printable(text).replace("|", "\\|")
    if not shown.strip():
        return "` `"
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    space = " " if shown[0] in "` " or shown[-1] in "` " else ""
    return f"{fence}{space}{shown}{space}{fence}"


def sentence(text: str) -> str:
    """A sentence of alens that may quote others: it cannot make links, code, HTML or further cells."""
    return re.sub(r"[\\`\[\]<&|]", r"\\\g<0>", printable(text))
