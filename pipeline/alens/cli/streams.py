"""Standard output and standard error that take everything: what cannot be written is lost, and the work goes on.

In: the file descriptors 0, 1 and 2 as this process got them: open, closed, on a full disk, or with nobody at the
other end. Out: `sys.stdout` and `sys.stderr` as `Stream`s. They escape whatever would work a terminal, whoever
writes it, and remember the first error, so that `alens.cli.run` can say that a result was lost.
"""

import errno
import io
import os
import select
import sys
from typing import BinaryIO, TextIO, cast

from alens.printable import printable_lines


class _Descriptor(io.RawIOBase):
    """Writes all bytes to a file descriptor, or loses them: it never raises. Closing it leaves the descriptor open."""

    def __init__(self, number: int, closed: bool) -> None:
        self._number, self._closed = number, closed
        self.lost: OSError | None = None
        """The first error; None while all was written."""

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


class Stream(io.TextIOWrapper):
    """Text for people. `unescaped` is for what draws: its own control characters pass."""

    def __init__(self, number: int, *, encoding: str, closed: bool) -> None:
        self._descriptor = _Descriptor(number, closed)
        buffer = cast(BinaryIO, self._descriptor)
        errors = "backslashreplace"  # a stream without UTF-8 shows an escape, and loses no result
        super().__init__(buffer, encoding, errors, write_through=True)
        self.unescaped: TextIO = io.TextIOWrapper(buffer, encoding, errors, write_through=True)

    @property
    def lost(self) -> OSError | None:
        """Why something could not be written, the first time; None while all was."""
        return self._descriptor.lost

    @lost.setter
    def lost(self, error: OSError | None) -> None:
        self._descriptor.lost = error

    def write(self, text: str) -> int:
        super().write(printable_lines(text))
        return len(text)


def install() -> None:
    """Put a `Stream` in the place of `sys.stdout` and `sys.stderr`.

    A descriptor that is closed becomes /dev/null first: the next file to be opened would get its number, and what a
    library prints would end in that file.
    """
    closed = [number for number in (0, 1, 2) if _fill(number)]
    if 0 in closed:
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    for number, name in ((1, "stdout"), (2, "stderr")):
        encoding = getattr(getattr(sys, name), "encoding", None) or "utf-8"
        setattr(sys, name, Stream(number, encoding=encoding, closed=number in closed))


def _fill(number: int) -> bool:
    """Whether this descriptor was closed; it is open now."""
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
