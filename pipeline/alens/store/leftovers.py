"""Clears unfinished files and directories of killed processes, before the same files are written again.

In: the files that are about to be written. Out: unfinished versions of them are gone, except those that a process may
still be writing: the name of each says which process on which host made it (`alens.store.durable.partial_of`).
Nothing else is touched, and no link is followed.
"""

import contextlib
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from alens.store.claim import Holder
from alens.store.durable import PARTIAL

ABANDONED_S = 24 * 3600.0
"""Nothing is known about processes on other hosts: a file of theirs that has not changed for so long is abandoned."""


def clear(*paths: Path) -> None:
    """Remove what dead processes left of these files or directories."""
    for path in paths:
        for left, maker in _unfinished(path.parent, re.escape(path.name)):
            with contextlib.suppress(OSError):  # another run has cleared it
                if maker.is_dead or time.time() - _changed(left) > ABANDONED_S:
                    _remove(left)


def clear_held(folder: Path, names: str) -> None:
    """Remove all unfinished files with these names, a regular expression. Only this process may write them now."""
    for left, _ in _unfinished(folder, names):
        _remove(left)


def _unfinished(folder: Path, names: str) -> Iterator[tuple[Path, Holder]]:
    """What is unfinished in `folder`, and who made it. Nothing where it cannot be read: the work itself will say so."""
    made = re.compile(rf"\.(?:{names})\.(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{{8}}{re.escape(PARTIAL)}")
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            if maker := made.fullmatch(path.name):
                yield path, Holder(maker["host"], int(maker["pid"]), "")


def _changed(path: Path) -> float:
    """When `path`, or something in it, was changed last."""
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    times: list[float] = [each.lstat().st_mtime for each in (path, *inside)]
    return max(times)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
