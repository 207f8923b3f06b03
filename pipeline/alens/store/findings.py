"""What can be wrong with a cache, and a check of a single file.

In: a path and what should be there. Out: a `Finding` for people and for `alens verify --repair`; a `Trouble`
for a file that is not what its record says. Functions here return what they find, and do not raise.
"""

import errno
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alens.errors import DamageError
from alens.printable import printable
from alens.store import document, durable

Kind = Literal["damaged", "missing", "foreign", "unfinished"]

RERUN = "run `alens cache` again"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is not as `alens cache` left it."""

    kind: Kind
    """damaged and missing: the cache is not whole. foreign and unfinished: harmless, not part of the cache."""
    path: str
    """Relative to the cache, with "/"; unprintable characters are escaped."""
    what: str
    """One short clause."""
    mend: str
    """What `--repair` does about it, or what the user can do."""
    queue: tuple[str, ...] = ()
    """Files that `--repair` moves aside so that they are rewritten, and partial files that it removes; relative to the cache."""

    @property
    def fails(self) -> bool:
        return self.kind in ("damaged", "missing")


@dataclass(frozen=True)
class Trouble:
    """What is wrong with one file that should be there."""

    kind: Literal["damaged", "missing"]
    what: str
    mend: str | None = None
    """What to do, where writing the file anew would not help. None: it helps."""

    def finding(self, path: str, mend: str, queue: tuple[str, ...]) -> Finding:
        """The finding of this trouble. `mend` and `queue` are used where rewriting helps."""
        if self.mend is not None:
            mend, queue = self.mend, ()
        return Finding(kind=self.kind, path=printable(path), what=self.what, mend=mend, queue=queue)


def look(path: Path, recorded: Mapping[str, Any]) -> Trouble | None:
    """Read every byte of a file from the disk, and compare with its recorded `bytes` and `sha256`. None: they agree."""
    if (trouble := _no_file(path)) is not None:
        return trouble
    try:
        size = path.stat().st_size
        if "bytes" in recorded and size != recorded["bytes"]:
            return Trouble("damaged", f"has {size:,} bytes, {recorded['bytes']:,} were written")
        if durable.sha256_of(path, from_disk=True) != recorded["sha256"]:
            return Trouble("damaged", "its SHA-256 is not that of what was written")
    except OSError as error:
        return _refused(error)
    return None


def read_document(path: Path) -> tuple[dict[str, Any] | None, bytes, Trouble | None]:
    """The object of a JSON document that holds its own hash, its bytes, and what is wrong with it."""
    if (trouble := _no_file(path)) is not None:
        return None, b"", trouble
    content = b""
    try:
        content = document.content(path)
        return document.decode(content, path.name), content, None
    except OSError as error:
        return None, b"", _refused(error)
    except DamageError:
        what = (
            "was altered or cut: it does not give its own hash"
            if content
            else "is too large to be a document"
        )
        return None, content, Trouble("damaged", what)


def _no_file(path: Path) -> Trouble | None:
    """Whether there is no file to read. Looks before opening: opening a pipe would wait for ever."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return _refused(error)
    if stat.S_ISREG(mode):
        return None
    what = "is a directory" if stat.S_ISDIR(mode) else "is not an ordinary file"
    return Trouble("damaged", f"{what}, a file belongs here", "move it away, then verify again")


def _refused(error: OSError) -> Trouble:
    """What the system said when it refused to read."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return Trouble("missing", "is not there")
    what = f"cannot be read ({error.strerror or error})"
    if error.errno == errno.EIO:  # the disk or file system lost bytes
        return Trouble("damaged", what)
    return Trouble("damaged", what, "--repair leaves it alone: make it readable, then verify again")
