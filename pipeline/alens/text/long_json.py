"""Reads a long line of JSON and leaves its long strings in the file.

In: a file and the start of the line. Out: the object that `json` makes of the line, with a `LongString` in place of
each long string; its text is read in parts when it is asked for. We know of no library that reads a string of JSON in
parts (ijson holds each string whole). So this module looks for the ends of strings, and `json` reads everything else:
the line with a short name in place of each long string, and the parts of the strings.
"""

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from alens.text.line_rows import FileLine
from alens.text.text_columns import PART_BYTES

KEPT_BYTES = 1 << 16
"""Longer strings are left in the file."""

_NUL = b"\\u0000"
"""How JSON writes the character with which the names of long strings begin. A string of the line that begins with it is
left in the file as well, so that it is not taken for such a name."""

_CHARACTERS = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
"""The contents of a string, up to its closing quote or to a backslash at the end of what has been read."""

_WHOLE_CHARACTERS = re.compile(
    r"(?:[^\\]++"
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|\\u(?![dD][89abAB])[0-9a-fA-F]{4}"
    r"|\\[^u])*+"
)
"""The contents of a string up to an escape that may be incomplete: a surrogate pair is one character."""

_LONGEST_ESCAPE = 12


@dataclass(frozen=True)
class LongString:
    """A string of JSON in a file."""

    file: IO[bytes]
    begin: int
    end: int
    """`begin` is the place of its first byte after the quote, `end` that of the closing quote."""

    def parts(self) -> Iterator[tuple[str, float]]:
        """Its text in parts, each with its share of the whole. The position in the file is the same before and after.

        Raises `ValueError` for what is not a string of JSON, `UnicodeDecodeError` where it is not UTF-8.
        """
        decoder = codecs.getincrementaldecoder("utf-8")()
        place, rest = self.begin, ""
        while place < self.end:
            content = self._read(place, min(PART_BYTES, self.end - place))
            place += len(content)
            rest += decoder.decode(content, final=place == self.end)
            whole = _WHOLE_CHARACTERS.match(rest)
            cut = len(rest) if whole is None or place == self.end else whole.end()
            if len(rest) - cut > _LONGEST_ESCAPE:
                cut = len(rest)  # not an escape that goes on: `json` says what is wrong with it
            yield json.loads(f'"{rest[:cut]}"'), len(content) / (self.end - self.begin)
            rest = rest[cut:]

    def _read(self, place: int, count: int) -> bytes:
        back = self.file.tell()
        self.file.seek(place)
        content = self.file.read(count)
        self.file.seek(back)
        if not content:
            raise ValueError("the file has become shorter")
        return content


def read_long_object(file: IO[bytes], line: FileLine) -> tuple[Any, int]:
    """The object in a line whose start has been read, and the number of bytes of the line. The file is left behind the line.

    Raises `ValueError` when it is not JSON, `UnicodeDecodeError` when it is not UTF-8.
    """
    reading = _Reading(file.tell() - len(line.content))
    content, size = line.content, line.size
    while True:
        reading.take(content)
        content = b"" if content.endswith(b"\n") else file.readline(PART_BYTES)
        if not content:
            break
        size += len(content)
    body = json.loads(reading.outline.decode())
    return _with_strings(body, [LongString(file, begin, end) for begin, end in reading.strings]), size


def _with_strings(body: Any, strings: list[LongString]) -> Any:
    """`body`, with the strings in place of their names. Strings deeper than its own values are not needed."""
    if not isinstance(body, dict):
        return body
    return {
        key: strings[int(value[1:])] if isinstance(value, str) and value.startswith("\0") else value
        for key, value in body.items()
    }


class _Reading:
    """Goes through a line once and notes where its long strings are."""

    def __init__(self, place: int) -> None:
        self.outline = bytearray()
        """The line, with names for long strings."""
        self.strings: list[tuple[int, int]] = []
        self._place = place
        self._begin: int | None = None
        """Where the string that is being read began; None outside a string."""
        self._kept = bytearray()
        self._is_escaped = False
        """Whether a backslash stands before the next byte."""

    def take(self, content: bytes) -> None:
        """Read the next bytes of the line."""
        at = 0
        while at < len(content):
            at = self._outside(content, at) if self._begin is None else self._within(content, at)
        self._place += len(content)

    def _outside(self, content: bytes, at: int) -> int:
        quote = content.find(b'"', at)
        stop = len(content) if quote < 0 else quote + 1
        self.outline += content[at:stop]
        if quote >= 0:
            self._begin, self._kept = self._place + stop, bytearray()
        return stop

    def _within(self, content: bytes, at: int) -> int:
        quote = self._closing(content, at)
        stop = len(content) if quote < 0 else quote
        if len(self._kept) <= KEPT_BYTES:
            self._kept += content[at:stop]
        if quote < 0:
            return stop
        assert self._begin is not None
        if len(self._kept) > KEPT_BYTES or self._kept.startswith(_NUL):
            self._kept = bytearray(_NUL + str(len(self.strings)).encode())
            self.strings.append((self._begin, self._place + quote))
        self.outline += self._kept + b'"'
        self._begin = None
        return quote + 1

    def _closing(self, content: bytes, at: int) -> int:
        """The place of the quote that ends the string; -1 where the string goes on."""
        characters = _CHARACTERS.match(content, at + self._is_escaped)
        stop = len(content) if characters is None else characters.end()
        is_closed = content[stop : stop + 1] == b'"'
        self._is_escaped = stop < len(content) and not is_closed
        return stop if is_closed else -1
