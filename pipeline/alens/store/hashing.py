"""Reads files and compares their hashes, several files at a time.

In: files, and their hashes from documents. Out: each file in order, with what is wrong with it. There is one thread for
each CPU of this process: hashing does not hold Python's lock.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alens.errors import StoppedError
from alens.job.progress import Progress, Report, ShouldStop
from alens.machine.allotment import allotted_cpus
from alens.store.findings import Trouble, look


@dataclass(frozen=True)
class Job:
    """One file to hash; paths are relative to the cache."""

    path: str
    recorded: Mapping[str, Any]
    """The recorded `sha256`, and `bytes` where it is known."""
    owner: str
    """The document that holds its hash."""
    owner_content: bytes
    size: int
    mend: str
    queue: tuple[str, ...]


def check_files(
    root: Path,
    jobs: Sequence[Job],
    report: Report,
    should_stop: ShouldStop,
    look_at: Callable[[str, Mapping[str, Any]], Trouble | None] | None = None,
) -> Iterator[tuple[Job, Trouble | None]]:
    """Each job, and what is wrong with its file; None where nothing is. `look_at` reads a file that is elsewhere.

    Raises `StoppedError` when asked to stop.
    """
    look_at = look_at or (lambda path, recorded: look(root / path, recorded))
    total, done = sum(job.size for job in jobs), 0
    report(Progress(stage="verify", total=total, unit="bytes"))
    with ThreadPoolExecutor(allotted_cpus()) as pool:
        try:
            looked = pool.map(lambda job: look_at(job.path, job.recorded), jobs)
            for job, trouble in zip(jobs, looked, strict=True):
                if should_stop():
                    raise StoppedError(
                        f"stopped; {done:,} of {total:,} bytes of {root} were read: run again to verify all of them"
                    )
                yield job, trouble if trouble is not None and _is_current(root, job) else None
                done += job.size
                report(Progress(stage="verify", done=done, total=total, unit="bytes"))
        finally:
            pool.shutdown(cancel_futures=True)


def _is_current(root: Path, job: Job) -> bool:
    """False when the document was removed or rewritten meanwhile: then a worker is writing these files anew."""
    with contextlib.suppress(OSError):
        return (root / job.owner).read_bytes() == job.owner_content
    return False
