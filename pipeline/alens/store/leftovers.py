"""What killed processes left: unfinished files and directories, cleared by the next run that writes the same.

In: what is about to be written. Out: nothing beside it that was left unfinished, but for what may still be in the
making: a name says which process of which host made it (`alens.store.durable.partial_of`). Nothing else is touched,
and no link is followed.
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
"""Nothing is known of another host's processes: a file that has not changed for so long is nobody's."""


def clear(*paths: Path) -> None:
    """Remove what dead processes left of these files or directories."""
    for path in paths:
        for left, maker in _unfinished(path.parent, re.escape(path.name)):
            with contextlib.suppress(OSError):  # another run has cleared it
                if maker.is_dead or time.time() - _changed(left) > ABANDONED_S:
                    _remove(left)


def clear_held(folder: Path, names: str) -> None:
    """Remove whatever was left of files of these names, a regular expression: this process alone writes them now."""
    for left, _ in _unfinished(folder, names):
        _remove(left)


def _unfinished(folder: Path, names: str) -> Iterator[tuple[Path, Holder]]:
    """What is unfinished there, and who made it. Nothing where the place cannot be read: the work itself meets that."""
    made = re.compile(rf"\.(?:{names})\.(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{{8}}{re.escape(PARTIAL)}")
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            if found := made.fullmatch(path.name):
                yield path, Holder(found["host"], int(found["pid"]), "")


def _changed(path: Path) -> float:
    """When it, or something in it, was changed last."""
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    times: list[float] = [each.lstat().st_mtime for each in (path, *inside)]
    return max(times)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
