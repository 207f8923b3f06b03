"""The names of the files below a directory, from which the files of a corpus are chosen.

In: a directory. Out: an `Entry` for each file below it, sorted by name. Links to folders are followed, and each
folder is visited once. Hidden folders (`.git`, `__MACOSX`) are not entered. A broken link is an entry too.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from alens.errors import RequestError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file below a directory."""

    name: str
    """Its path below the directory, with `/` between the parts. A link to a folder above the directory ends in `/`."""
    identity: str
    """Its path without links: two names of one file have the same."""
    is_link: bool = False
    is_file: bool = True
    """Whether there is a file to read: False for a broken link, a pipe or a device."""


def list_files(folder: Path) -> tuple[Entry, ...]:
    """The files below `folder`. Raises `RequestError` when it, or a folder in it, cannot be read."""
    root = folder.resolve()
    entries: list[Entry] = []
    walked: set[Path] = set()
    waiting = [("", root)]  # a link waits until the folders themselves are walked: files keep their own names
    while waiting:
        prefix, top = waiting.pop(0)
        if top in root.parents:
            entries.append(Entry(name=prefix, identity=str(top), is_link=True, is_file=False))
            continue
        links = []
        for place, folders, files in os.walk(top, onerror=_refuse):
            current = Path(place)
            if current in walked:
                folders.clear()
                continue
            walked.add(current)
            below = prefix + "".join(f"{part}/" for part in current.relative_to(top).parts)
            folders[:] = [name for name in folders if not name.startswith((".", "__"))]
            linked = [name for name in folders if (current / name).is_symlink()]
            links += [(f"{below}{name}/", (current / name).resolve()) for name in linked]
            entries += [_entry(f"{below}{name}", current / name) for name in files]
        waiting += sorted(links)
    return tuple(sorted(entries, key=lambda entry: entry.name))


def _entry(name: str, path: Path) -> Entry:
    """The folder of `path` has no links in its own path."""
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
    except OSError:
        is_file = False
    is_link = path.is_symlink()
    try:
        identity = path.resolve() if is_link else path
    except (OSError, RuntimeError):  # a ring of links
        identity = path
    return Entry(name=name, identity=str(identity), is_link=is_link, is_file=is_file)


def _refuse(error: OSError) -> NoReturn:
    raise RequestError(f"cannot read {error.filename}: {error.strerror}") from None
