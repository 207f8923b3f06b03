"""Files of results: the path is checked before the work, and the file is written whole after it.

In: a path, and the suffixes that it may have. Out: the file, or before the work one line that says why not.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from alens.errors import RequestError
from alens.store import durable, leftovers
from alens.store.durable import write_errors

MARKS = {".html": b'<meta name="generator" content="alens">', ".png": b"Software\x00alens"}
"""A mark in every page and picture of alens, by suffix. A file without it is the user's own, and is not overwritten."""


def check(path: Path, suffixes: Sequence[str], what: str) -> None:
    """Raises `RequestError` unless `what` ("a heat map is") can be written to `path`."""
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
    """Write the whole file, in place of an older one. Raises `RunError` where the disk refuses."""
    leftovers.clear(path)
    with write_errors(path):
        durable.put(path, content, make_folder=False)
