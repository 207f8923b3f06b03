"""A directory that is whole or absent: filled beside its place, synced, renamed.

In: a path that is free. Out: a directory of that name, once everything in it has been written. A killed process
leaves a sibling directory whose name begins with a dot and ends in `.partial`: it is never read, and the next run
removes it.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from alens.errors import RequestError, RunError
from alens.sources import hub
from alens.store import durable, leftovers
from alens.store.durable import write_errors
from alens.store.writer import SPARE_BYTES


def check_free(out: Path) -> None:
    """Raises `RequestError` unless `out` is absent or an empty directory: nothing is ever overwritten."""
    hub.check_local(out)
    if out.is_dir():
        if any(out.iterdir()):
            raise RequestError(f"{out} is not empty: give a directory that is not there yet")
    elif out.exists() or out.is_symlink():
        raise RequestError(f"{out} is not a directory: give one that is not there yet")


def check_room(out: Path, num_bytes: int) -> None:
    """Raises `RunError` when the disk does not have that much free."""
    above = out.absolute()
    while not above.is_dir():
        above = above.parent
    free = shutil.disk_usage(above).free
    if free < num_bytes + SPARE_BYTES:
        raise RunError(
            f"{above} has {free:,} bytes free, and {out} will take {num_bytes:,} beside {SPARE_BYTES:,} that are kept free: "
            "make room, or name another place"
        )


@contextlib.contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Gives a directory to fill; it becomes `out` at the end, and is removed if anything fails.

    Raises `RequestError` when `out` is taken, `RunError` when the disk refuses.
    """
    check_free(out)
    target = out.resolve()
    partial = durable.partial_of(target)
    with write_errors(out):
        target.parent.mkdir(parents=True, exist_ok=True)
        leftovers.clear(target)
        partial.mkdir()
        try:
            yield partial
            durable.sync_folder(partial)
            partial.rename(target)  # replaces an empty directory, and nothing else
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        durable.sync_folder(target.parent)
