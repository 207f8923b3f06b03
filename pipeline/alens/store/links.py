"""Opens folders inside a directory without following a link.

In: a directory and a path relative to it. Out: the first link on the way, or a descriptor of the folder. A user who
got a cache from elsewhere did not make its links: another cache may lie behind one, so alens neither writes nor removes
anything there. The directory itself may be a link, because the user named it.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def link_before(root: Path, path: str) -> str | None:
    """The first folder between `root` and `root / path` that is a link; None when there is none."""
    folders = path.split("/")[:-1]
    for depth in range(1, len(folders) + 1):
        folder = "/".join(folders[:depth])
        if (root / folder).is_symlink():
            return folder
    return None


@contextlib.contextmanager
def folder_of(root: Path, path: str, *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder that holds `root / path`, for `dir_fd`; with `make`, missing folders are made.

    Raises `OSError` where something on the way is a link or is not a folder, even if it was put there a moment ago.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in path.split("/")[:-1]:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=descriptor)
                    os.fsync(descriptor)
            deeper = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = deeper
        yield descriptor
    finally:
        os.close(descriptor)
