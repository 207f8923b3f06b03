"""Other files in a cache directory: foreign ones, unfinished ones, and those of shards that are not committed.

In: a cache directory and which of its files the format knows. Out: findings. Nothing is opened, no link is
followed, nothing is deleted.
"""

import os
import re
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from alens.printable import printable
from alens.store.arrays import ArraySpec, groups, shard_arrays
from alens.store.durable import PARTIAL
from alens.store.findings import Finding
from alens.store.paths import ASIDE, CLAIM, StorePaths
from alens.store.schema import Plan

OLD_S = 3600.0
"""A partial file that has not changed for so long does not belong to a running job."""

SHARD_FILE = re.compile(r"c\.(\d+)(?:\.\d+)*")


def skeleton_keys(specs: Mapping[str, ArraySpec]) -> set[str]:
    """The files of arrays.zarr that are not part of a shard: metadata of groups and arrays, and the model's weights."""
    keys = {"zarr.json", *(f"{name}/zarr.json" for name in specs.keys() | groups(specs))}
    return keys | {_key(spec, 0) for spec in specs.values() if spec.is_weight}


def shard_keys(specs: Mapping[str, ArraySpec], shard: int) -> set[str]:
    """The files of arrays.zarr that make up a shard."""
    return {_key(spec, shard) for spec in specs.values() if not spec.is_weight}


def _key(spec: ArraySpec, shard: int) -> str:
    return f"{spec.name}/{StorePaths.shard_key(shard, len(spec.shape))}"


@dataclass(frozen=True)
class Known:
    """Which files of a cache directory are accounted for."""

    files: frozenset[str]
    """The files that are there or should be, relative to STORE."""
    shard_of: Callable[[str], int | None]
    """The shard that a path relative to STORE belongs to, committed or not; None where it belongs to none."""
    is_named: Callable[[int], bool] = lambda shard: False
    """Whether a finding already says that the record of a shard is damaged or missing."""
    has_plan: bool = True
    """False without a plan: then nobody knows which arrays belong to the cache, and what looks like an array is not
    foreign."""

    def may_be_array(self, path: str) -> bool:
        name = path.rpartition("/")[2]
        is_named_so = name == "zarr.json" or SHARD_FILE.fullmatch(name) is not None
        return not self.has_plan and path.startswith("arrays.zarr/") and is_named_so

    def may_be_folder(self, path: str) -> bool:
        return not self.has_plan and path.startswith("arrays.zarr/")

    @property
    def folders(self) -> set[str]:
        above = {file[:at] for file in self.files for at, letter in enumerate(file) if letter == "/"}
        return above | {"arrays.zarr", "commits"}


def shard_of_plan(plan: Plan) -> Callable[[str], int | None]:
    """The shard of each path, as the plan says."""
    dimensions = {name: len(spec.shape) for name, spec in shard_arrays(plan).items()}

    def shard_of(path: str) -> int | None:
        array, _, key = path.removeprefix("arrays.zarr/").rpartition("/")
        match = SHARD_FILE.fullmatch(key)
        if match is None or array not in dimensions or not path.startswith("arrays.zarr/"):
            return None
        shard = int(match[1])
        return (
            shard
            if shard < plan.num_shards and key == StorePaths.shard_key(shard, dimensions[array])
            else None
        )

    return shard_of


def shard_of_name(path: str) -> int | None:
    """The shard that a path belongs to by its name alone, without a plan."""
    match = SHARD_FILE.fullmatch(path.rpartition("/")[2])
    inside = path.startswith("arrays.zarr/") and not path.startswith("arrays.zarr/model/")
    return int(match[1]) if match and inside else None


def other_entries(root: Path, known: Known, now: float | None = None) -> Iterator[Finding]:
    """Everything in `root` that is not a file of the cache."""
    uncommitted: Counter[int] = Counter()
    folders = known.folders
    yield from _folder(root, "", known, folders, uncommitted, time.time() if now is None else now)
    for shard, files in sorted((+uncommitted).items()):
        yield Finding(
            kind="unfinished",
            path=f"commits/{shard:06d}.json",
            what=f"shard {shard} is not committed, {files} files of it are there",
            mend="harmless: a worker is writing them or was stopped; `alens cache` writes them anew",
        )


def _folder(
    root: Path, inside: str, known: Known, folders: set[str], uncommitted: Counter[int], now: float
) -> Iterator[Finding]:
    try:
        with os.scandir(root / inside) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    except OSError as error:
        yield _foreign(
            inside or ".", f"cannot be listed ({error.strerror}): what is foreign in it is not named"
        )
        return
    for entry in entries:
        path = f"{inside}/{entry.name}" if inside else entry.name
        if entry.is_symlink():
            yield _link(root, path, path in known.files or path in folders)
        elif entry.is_dir(follow_symlinks=False):
            if path == ASIDE:
                continue
            if path in folders or known.may_be_folder(path):
                yield from _folder(root, path, known, folders, uncommitted, now)
            elif path not in known.files:
                yield _foreign(path, "is a directory that no cache has")
        elif path not in known.files:
            shard = known.shard_of(path)
            if shard is not None and entry.is_file(follow_symlinks=False):
                uncommitted[shard] += not known.is_named(shard)
            elif not known.may_be_array(path):
                yield from _file(entry, path, now)


def _file(entry: "os.DirEntry[str]", path: str, now: float) -> Iterator[Finding]:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # a worker finished it just now
        return
    if path == CLAIM:
        what = "a job is making the plan, or was stopped doing so"
        yield Finding(kind="unfinished", path=path, what=what, mend="harmless: run `alens cache` again")
    elif path.endswith(PARTIAL) and stat.S_ISREG(status.st_mode):
        old = now - status.st_mtime > OLD_S
        yield Finding(
            kind="unfinished",
            path=printable(path),
            what=f"a file that was not finished{', more than an hour ago' if old else ''}",
            mend="--repair removes it" if old else "harmless: a running job may be writing it",
            queue=(path,) if old else (),
        )
    else:
        yield _foreign(path, "is a file that no cache has")


def _link(root: Path, path: str, is_known: bool) -> Finding:
    target = printable(str((root / path).readlink()))
    if is_known:
        return _foreign(path, f"is a symbolic link to {target}: what it leads to was checked in its place")
    return _foreign(path, f"is a symbolic link to {target} that no cache has")


def _foreign(path: str, what: str) -> Finding:
    mend = "it is left alone: move it away if you do not need it here"
    return Finding(kind="foreign", path=printable(path), what=what, mend=mend)
