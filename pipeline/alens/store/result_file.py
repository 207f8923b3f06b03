"""Files that hold what a command found: checked before the work, written whole after it.

In: a path, the suffixes that say its form. Out: the file, or one line that says why not, while nothing is lost yet.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from alens.errors import RequestError
from alens.store import durable, leftovers
from alens.store.durable import write_errors

MARKS = {".html": b'<meta name="generator" content="alens">', ".png": b"Software\x00alens"}
"""In every page and picture of alens, by suffix: a file without it is somebody's own, and stays."""


def check(path: Path, suffixes: Sequence[str], what: str) -> None:
    """Raises `RequestError` unless `what` ("a heat map is") can be written there."""
    folder = path.absolute().parent
    if path.suffix not in suffixes:
        raise RequestError(f"{path}: {what} written as {' or '.join(suffixes)}; name such a file")
    if not folder.is_dir():
        raise RequestError(f"{folder} does not exist: make it, or name a file elsewhere")
    if path.is_dir():
        raise RequestError(f"{path} is a directory: name a file")
    mark = MARKS.get(path.suffix)
    if mark is not None and path.exists() and mark not in path.read_bytes():
        raise RequestError(f"{path} is there, and alens did not write it: name another file, or remove it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RequestError(f"{folder} may not be written to: name a file elsewhere")


def write(path: Path, content: bytes) -> None:
    """The file whole, over one that is there. Raises `RunError` where the disk refuses."""
    leftovers.clear(path)
    with write_errors(path):
        durable.put(path, content, make_folder=False)
