"""Which columns of a file of text are read, and the `Row`s that reading gives.

A long row comes as several `Row`s, so that memory does not grow with its length.
"""

from pathlib import Path
from typing import Any, NamedTuple

from alens.errors import RequestError

LONG_BYTES = 1 << 20
"""A row or line of this many bytes or more is not held in memory as a whole."""

PART_BYTES = 1 << 18
"""A long row is read in parts of this many bytes."""


class Row(NamedTuple):
    """One row of a file, or a part of a long one."""

    text: str | None
    """None where the row has no text."""
    document: Any
    """The value of the document column; None without one."""
    size: float
    """Its part of the file's `size_of`."""
    starts: bool = True
    """False where this continues the row before it."""


class TextColumns(NamedTuple):
    """The columns that are read."""

    text: str
    document: str | None = None

    @property
    def wanted(self) -> list[str]:
        """The names of the columns, each once."""
        return list(dict.fromkeys(name for name in self if name is not None))

    def check(self, names: list[str], path: Path) -> None:
        """Raises `RequestError` when one of them is not among `names`."""
        for column, option in ((self.text, "--text-column"), (self.document, "--document-column")):
            if column is not None and column not in names:
                raise RequestError(
                    f"{path} has no column {column!r}: it has {', '.join(names) or 'none'}; choose with {option}"
                )

    def not_text(self, value: Any, where: str) -> RequestError:
        """The error for a value of the text column that is not text."""
        return RequestError(
            f"column {self.text!r} of {where} holds {type(value).__name__}, not text: choose with --text-column"
        )


def said(error: Exception) -> str:
    """What the system or a library says about a file that cannot be read, in one line."""
    return getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
