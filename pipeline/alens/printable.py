"""Text that others wrote, made fit to be shown: no character of it can work a terminal or begin a line of its own.

In: any text: a name from a stranger's plan.json, a file's name, the message of a library. Out: the same text, with
what a terminal would obey instead of show written as an escape, `\\x1b`. Letters of every script and emoji stay.
"""

import re

CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters, the line break among them
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # these turn the direction of what follows
    "\u2028\u2029\ufeff\ufff9-\ufffb"  # further line breaks, and marks without a width
    "\ud800-\udfff]"  # half characters, of file names that are not UTF-8: no stream can write them
)
_IN_LINES = re.compile(f"(?![\n\t]){CONTROL.pattern}")


def printable(text: str) -> str:
    """`text` on one line."""
    return CONTROL.sub(_escape, text)


def printable_lines(text: str) -> str:
    """`text` with its line breaks and tabs."""
    return _IN_LINES.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
