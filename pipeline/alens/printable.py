"""Text from elsewhere, made safe to show: no character of it can control a terminal or start a new line.

In: any text, such as a name in somebody else's plan.json, a file's name, or the message of a library. Out: the same
text with control characters written as escapes, such as `\\x1b`. Letters of every script and emoji stay.
"""

import re

CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters, the line break among them
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # these change the direction of the text that follows
    "\u2028\u2029\ufeff\ufff9-\ufffb"  # further line breaks, and marks without a width
    "\ud800-\udfff]"  # half characters, of file names that are not UTF-8: no stream can write them
)
_IN_LINES = re.compile(f"(?![\n\t]){CONTROL.pattern}")


def printable(text: str) -> str:
    """`text` on one line, control characters escaped."""
    return CONTROL.sub(_escape, text)


def printable_lines(text: str) -> str:
    """`text` with its line breaks and tabs, other control characters escaped."""
    return _IN_LINES.sub(_escape, text)


def quoted(token: str, most: int = 24) -> str:
    """A token as Python writes it, `' Mary'`; one of more than `most` characters is cut, with an ellipsis."""
    text = repr(token)
    return text if len(text) <= most else f"{text[: most - 2]}…{text[-1]}"


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
