"""The directory of an atlas: which files it has, and how it is replaced as a whole.

In: a path. Out: a directory to fill, which takes the place of an earlier atlas at the end. A killed process leaves a
sibling directory whose name begins with a dot and ends in `.partial`: it is never read, and the next run removes it.
"""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from alens.errors import RequestError
from alens.heads import Head
from alens.store import durable, leftovers, result_file
from alens.store.durable import write_errors

INDEX = "index.html"
HEADS, TOKENS = "heads", "tokens"

MARK = b'<main id="alens-atlas">'
"""Stands in the index of every atlas, beside the mark of all pages of alens."""

_OURS = re.compile(rf"{INDEX}|{HEADS}|{HEADS}/\d+\.\d+\.html|{TOKENS}|{TOKENS}/[a-z0-9-]+\.js")
"""What an atlas may hold. A directory with anything else is not replaced."""


def head_file(head: Head) -> str:
    """The path of a head's page inside the atlas."""
    return f"{HEADS}/{head[0]}.{head[1]}.html"


def check_place(out: Path) -> None:
    """Raises `RequestError` unless an atlas can be written to `out`: it is absent, empty, or an atlas of alens."""
    if not out.exists() and not out.is_symlink():
        if not out.absolute().parent.is_dir():
            raise RequestError(
                f"{out.absolute().parent} does not exist: make it, or name a directory elsewhere"
            )
        return
    if not out.is_dir():
        raise RequestError(f"{out} is not a directory: name one that is not there yet")
    names = [path.relative_to(out).as_posix() for path in out.rglob("*")]
    if not names:
        return
    index = out / INDEX
    content = index.read_bytes() if index.is_file() else b""
    if MARK not in content or result_file.MARKS[".html"] not in content:
        raise RequestError(
            f"{out} is there, and it is not an atlas of alens: name another directory, or remove it"
        )
    strange = [name for name in names if not _OURS.fullmatch(name)]
    if strange:
        raise RequestError(
            f"{out} holds {strange[0]}, which alens did not write: move it, or name another directory"
        )


@contextlib.contextmanager
def whole_atlas(out: Path) -> Iterator[Path]:
    """Gives a directory to fill; it takes the place of `out` at the end, and is removed if anything fails.

    Raises `RequestError` as `check_place` does, `RunError` when the disk refuses.
    """
    check_place(out)
    target = out.resolve()
    partial, old = durable.partial_of(target), durable.partial_of(target)
    with write_errors(out):
        leftovers.clear(target)
        partial.mkdir()
        try:
            yield partial
            durable.sync_folder(partial)
            if target.exists():
                check_place(out)
                target.rename(old)
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(old, ignore_errors=True)
        durable.sync_folder(target.parent)
