"""What commands print: the only module of the command line that writes to standard output and standard error.

In: lines, which may hold anything. Out: each on one line, with what would work a terminal escaped, so that no name in
a stranger's file can erase or forge another line. What cannot be written never ends the work; `unwritten` says
afterwards whether a result was lost. Tables are drawn by `alens.cli.tables`.
"""

import contextlib
import json
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

from alens.cli.streams import Stream
from alens.printable import CONTROL, printable


def show(*lines: str) -> None:
    """Print lines on standard output."""
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))
    sys.stdout.flush()


def show_json(body: Any) -> None:
    """Print one JSON document on standard output; what would work a terminal stands in it as JSON's own escapes."""
    text = CONTROL.sub(_in_json, json.dumps(body, indent=1, ensure_ascii=False))
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(body, indent=1)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _in_json(found: re.Match[str]) -> str:
    """json.dumps has escaped all below a space: what is left of these lays out the document."""
    return found[0] if found[0] < " " else f"\\u{ord(found[0]):04x}"


def tell(line: str) -> None:
    """Print one line on standard error: progress, or why it ended."""
    sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """What is printed inside only says what was done: the command does not fail when nobody can read it."""
    stream = sys.stdout
    before = unwritten()
    try:
        yield
    finally:
        if isinstance(stream, Stream):
            stream.lost = before


def unwritten() -> OSError | None:
    """Why a part of the result could not be written to standard output; None when all of it was."""
    return sys.stdout.lost if isinstance(sys.stdout, Stream) else None


class OneLine(logging.Formatter):
    """A record of a log is one line, whatever its message holds."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
