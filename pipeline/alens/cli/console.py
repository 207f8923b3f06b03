"""What commands print: the only module of the command line that writes to standard output and standard error.

In: text, which may hold anything. Out: each item on one line with its control characters escaped, so that no name in
a stranger's file can erase or forge another line. Output that cannot be written never ends the work; `unwritten` says
afterwards whether a result was lost. Tables are drawn by `alens.cli.tables`.
"""

import contextlib
import errno
import io
import json
import logging
import os
import re
import select
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TextIO, cast

from alens.printable import CONTROL, printable, printable_lines


def show(*lines: str) -> None:
    """Print lines on standard output."""
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))
    sys.stdout.flush()


def show_json(body: Any) -> None:
    """Print one JSON document on standard output; control characters are written as JSON's own escapes."""
    text = CONTROL.sub(_in_json, json.dumps(body, indent=1, ensure_ascii=False))
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(body, indent=1)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def show_result(result: Any, show_it: Callable[[], None], *, as_json: bool) -> None:
    """Print a result: as JSON, or by `show_it`."""
    if as_json:
        show_json(result.to_json())
    else:
        show_it()


@contextlib.contextmanager
def printed(result: Any, show_it: Callable[[], None], *, as_json: bool) -> Iterator[None]:
    """Prints a result once the block has written its files, and also where a full disk refuses these."""
    try:
        yield
    finally:
        show_result(result, show_it, as_json=as_json)


def _in_json(match: re.Match[str]) -> str:
    """json.dumps has escaped all characters below a space: those that are left lay out the document."""
    return match[0] if match[0] < " " else f"\\u{ord(match[0]):04x}"


def tell(line: str) -> None:
    """Print one line on standard error: progress, or why it ended."""
    sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """For lines that only say what was done: the command does not fail when nobody can read them."""
    stream = sys.stdout
    before = unwritten()
    try:
        yield
    finally:
        if isinstance(stream, LossyStream):
            stream.lost = before


def unwritten() -> OSError | None:
    """Why a part of the result could not be written to standard output; None when everything was written."""
    return sys.stdout.lost if isinstance(sys.stdout, LossyStream) else None


class OneLine(logging.Formatter):
    """Makes one line of a log record, whatever its message holds."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


# Standard output and standard error


class _Descriptor(io.RawIOBase):
    """Writes bytes to a file descriptor, or loses them: it never raises. Closing it leaves the descriptor open."""

    def __init__(self, number: int, closed: bool) -> None:
        self._number, self._closed = number, closed
        self.lost: OSError | None = None
        """The first error; None while everything was written."""

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]  # typeshed's Buffer
        left = memoryview(data).cast("B")
        size = len(left)
        while left:
            try:
                if self._closed:
                    raise OSError(errno.EBADF, "it is closed")
                left = left[os.write(self._number, left) :]
            except BlockingIOError:  # a pipe that somebody made non-blocking is full
                select.select([], [self._number], [])
            except OSError as error:
                self.lost = self.lost or error
                break
        return size

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)


class LossyStream(io.TextIOWrapper):
    """Write text for people. `unescaped` is for code that draws: its control characters are kept."""

    def __init__(self, number: int, *, encoding: str, closed: bool) -> None:
        self._descriptor = _Descriptor(number, closed)
        buffer = cast(BinaryIO, self._descriptor)
        errors = "backslashreplace"  # a stream without UTF-8 shows an escape, and loses no result
        super().__init__(buffer, encoding, errors, write_through=True)
        self.unescaped: TextIO = io.TextIOWrapper(buffer, encoding, errors, write_through=True)

    @property
    def lost(self) -> OSError | None:
        """The first error of writing; None while everything was written."""
        return self._descriptor.lost

    @lost.setter
    def lost(self, error: OSError | None) -> None:
        self._descriptor.lost = error

    def write(self, text: str) -> int:
        super().write(printable_lines(text))
        return len(text)


def install() -> None:
    """Put a `LossyStream` in the place of `sys.stdout` and `sys.stderr`.

    A descriptor that is closed becomes /dev/null first: the next file to be opened would get its number, and what a
    library prints would end in that file.
    """
    closed = [number for number in (0, 1, 2) if _fill(number)]
    if 0 in closed:
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    for number, name in ((1, "stdout"), (2, "stderr")):
        encoding = getattr(getattr(sys, name), "encoding", None) or "utf-8"
        setattr(sys, name, LossyStream(number, encoding=encoding, closed=number in closed))


def installed() -> bool:
    """Whether `install` was called: the process runs one command, and then ends."""
    return isinstance(sys.stdout, LossyStream)


def _fill(number: int) -> bool:
    """Opens a descriptor that is closed; whether it was."""
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        os.set_inheritable(number, True)
        return True
    return False
