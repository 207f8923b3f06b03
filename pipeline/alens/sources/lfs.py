"""Files that git did not fetch: a clone without git-lfs has a few lines in the place of each large file.

In: a path. Out: nothing, or an error that says how to fetch the file.
"""

from pathlib import Path

from alens.errors import RequestError

BEGINS = b"version https://git-lfs.github.com/spec/v1"
MOST_BYTES = 1024
"""The longest pointer that the specification of git-lfs allows."""


def check_fetched(path: Path) -> None:
    """Raises `RequestError` where `path` is a pointer of git-lfs; leaves a file that cannot be read to the caller."""
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return
        with path.open("rb") as file:
            is_pointer = file.read(len(BEGINS)) == BEGINS
    except OSError:
        return
    if is_pointer:
        raise RequestError(
            f"{path} is a pointer of git-lfs, not the file that it stands for: run `git lfs pull` in {path.parent}"
        )
