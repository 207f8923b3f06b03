"""Queues what `verify` found for rewriting: `alens cache` writes shards that have no record.

In: a cache directory and findings. Out: the documents that make damaged files count (the record of a shard and the
manifest, the record of the metadata and weights, a damaged document itself) are moved to `aside/1/`, at the next repair
to `aside/2/`; partial files that nobody writes to are removed. Arrays, foreign files and everything behind a link stay
as they are.
"""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from alens.printable import printable
from alens.store.durable import PARTIAL, write_errors
from alens.store.findings import Finding
from alens.store.links import folder_of, link_before
from alens.store.paths import ASIDE

FIRST = "MANIFEST.json"
"""Moved first: a cache must not be sealed while a record of it is missing."""


def unless_linked(root: Path, finding: Finding) -> Finding:
    """`finding`, without its queue where that lies behind a link: files there may belong to another cache."""
    for path in finding.queue:
        if (link := link_before(root, path)) is not None:
            mend = f"{printable(link)} is a link, and --repair changes nothing behind one: put a directory in its place"
            return dataclasses.replace(finding, mend=mend, queue=())
    return finding


def queued(root: Path, findings: Sequence[Finding]) -> list[str]:
    """What `repair` would move or remove: existing paths relative to `root`, in that order."""
    paths = {path for finding in findings for path in finding.queue}
    return [
        path
        for path in sorted(paths, key=lambda path: (path != FIRST, path))
        if os.path.lexists(root / path) and link_before(root, path) is None
    ]


def repair(root: Path, findings: Sequence[Finding]) -> dict[str, str | None]:
    """Move aside what `findings` queue, durably. Gives the new place of each file, None for removed ones; relative to `root`.

    Raises `RunError` when the system refuses.
    """
    went: dict[str, str | None] = {}
    aside: str | None = None
    with write_errors(root):
        for path in queued(root, findings):
            if path.endswith(PARTIAL):
                _remove(root, path)
                went[path] = None
            else:
                aside = aside or _new_folder(root)
                _move(root, path, f"{aside}/{path}")
                went[path] = f"{aside}/{path}"
    return went


def _new_folder(root: Path) -> str:
    """Make `aside/1`, or the next number that is free."""
    number = 1
    with folder_of(root, f"{ASIDE}/", make=True) as aside:
        while True:
            with contextlib.suppress(FileExistsError):
                os.mkdir(str(number), dir_fd=aside)
                os.fsync(aside)
                return f"{ASIDE}/{number}"
            number += 1


def _move(root: Path, path: str, to: str) -> None:
    """A link itself is moved; its target stays."""
    with folder_of(root, path) as here, folder_of(root, to, make=True) as there:
        os.rename(path.rpartition("/")[2], to.rpartition("/")[2], src_dir_fd=here, dst_dir_fd=there)
        os.fsync(there)
        os.fsync(here)


def _remove(root: Path, path: str) -> None:
    with folder_of(root, path) as here:
        os.unlink(path.rpartition("/")[2], dir_fd=here)
        os.fsync(here)
