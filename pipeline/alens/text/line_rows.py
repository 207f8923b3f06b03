"""The lines of a UTF-8 file, and the rows of a .txt file. A long line comes in parts.

In: a path. Out: `FileLine`s, which end in \\n; or `Row`s, which end in \\n, \\r\\n or \\r. A byte order mark at the start
of a file is not text. Memory: `LONG_BYTES`, whatever the length of a line.
"""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from alens.errors import RequestError
from alens.text.text_columns import LONG_BYTES, Row, TextColumns

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class FileLine(NamedTuple):
    """A line, or the start of one that is longer than LONG_BYTES."""

    content: bytes
    """With the \\n; without a byte order mark."""
    size: int
    """How many bytes it takes in the file."""
    number: int
    """Counted from 1."""
    is_whole: bool


def read_line(file: IO[bytes], number: int) -> FileLine | None:
    """The next line of the file, at most LONG_BYTES of it; None at the end of the file."""
    content = file.readline(LONG_BYTES)
    if not content:
        return None
    is_whole = len(content) < LONG_BYTES or content.endswith(b"\n")
    marked = number == 1 and content.startswith(codecs.BOM_UTF8)
    return FileLine(content[len(codecs.BOM_UTF8) :] if marked else content, len(content), number, is_whole)


def decoded(line: FileLine, path: Path) -> str:
    """The text of a whole line. Raises `RequestError` when it is not UTF-8."""
    try:
        return line.content.decode()
    except UnicodeDecodeError as error:
        raise not_utf_8(line, path, error) from None


def not_utf_8(line: FileLine, path: Path, error: UnicodeDecodeError) -> RequestError:
    """The error for a line that is not UTF-8."""
    is_utf_16 = line.number == 1 and line.content.startswith(_UTF_16)
    why = "UTF-16" if is_utf_16 else f"not UTF-8 ({error.reason})"
    return RequestError(f"cannot read text from {path}: line {line.number} is {why}; convert it to UTF-8")


def line_rows(path: Path, columns: TextColumns) -> Iterator[Row]:
    """The rows of a .txt file: lines as Python reads them. Raises `RequestError` when it is not UTF-8."""
    columns.check(["text"], path)
    number = 0
    with path.open("rb") as file:
        while line := read_line(file, number + 1):
            number = line.number
            if line.is_whole:
                text = decoded(line, path).rstrip("\r\n")
                if "\r" in text:
                    yield from _rows(text, line.size, starts=True)
                else:
                    yield Row(text, None, line.size)
            else:
                yield from _long_rows(line, file, path)


def _long_rows(line: FileLine, file: IO[bytes], path: Path) -> Iterator[Row]:
    """The rows of a long line whose start has been read."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    content, size, starts, ends = line.content, line.size, True, False
    while not ends:
        following = b"" if content.endswith(b"\n") else file.readline(LONG_BYTES)
        ends = not following
        try:
            text = decoder.decode(content, final=ends)
        except UnicodeDecodeError as error:
            raise not_utf_8(line, path, error) from None
        yield from _rows(text.rstrip("\n"), size, starts=starts)
        content, size, starts = following, len(following), False


def _rows(text: str, size: int, *, starts: bool) -> Iterator[Row]:
    """The rows of a stretch without \\n: what Python calls universal newlines."""
    first, *others = text.split("\r")
    yield Row(first, None, size, starts)
    yield from (Row(other, None, 0) for other in others)
