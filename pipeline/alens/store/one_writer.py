"""Lets one process at a time write into a directory: a second one is refused, and a dead one is replaced.

In: a directory that work writes into for a while. Out: its claim, `alens.claim` beside the files, for as long as the
work goes on. A living process shows beats, so a second process knows within a few beats whether the first still runs.
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from alens.errors import RequestError, RunError, StoppedError
from alens.job.progress import ShouldStop, never
from alens.store import durable, leftovers
from alens.store.claim import BEAT_S, Claim, LostClaimError, Watch, read
from alens.store.durable import write_errors

log = logging.getLogger("alens")

CLAIM = "alens.claim"

OWN = r"[^/]+\.json|[^/]+\.safetensors"
"""Names of files that only the holder writes, unlike pictures and pages."""

WAIT_S = 5 * BEAT_S
"""A holder without a beat for so long counts as dead."""

POLL_S = 0.5

SETTLE_S = 0.5
"""Several processes may take over from a dead holder at once: the last of them holds the claim, and after so many seconds
the others can see it."""


def is_aside(name: str) -> bool:
    """Whether a file of this name does not count as contents of a directory: a claim, or what a killed process left."""
    return name == CLAIM or name.endswith(durable.PARTIAL)


@contextlib.contextmanager
def claimed(folder: Path, should_stop: ShouldStop = never) -> Iterator[Claim]:
    """Hold `folder`. It is made where it is missing, and removed again if it was made here and is left empty.

    Raises `RequestError` within WAIT_S when a living process holds it, `StoppedError` when asked to stop before that is
    known, `RunError` when the disk refuses.
    """
    made = not folder.exists()
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with _held(folder, should_stop) as claim:
            leftovers.clear_held(folder, OWN)
            leftovers.clear(folder / CLAIM)  # another process may be writing one now: only those of dead ones
            yield claim
    finally:
        if made:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def check(claim: Claim, folder: Path) -> None:
    """Raises `RunError` when another process works in `folder` now."""
    try:
        claim.check()
    except LostClaimError:
        holder = read(folder / CLAIM)
        who = f"taken over by {holder}" if holder else "deleted"
        raise RunError(
            f"{folder} does not belong to this process any more: its {CLAIM} was {who}, perhaps while this one was suspended; "
            "nothing more is written here"
        ) from None


def _held(folder: Path, should_stop: ShouldStop) -> Claim:
    claim, watch, logged = Claim(folder / CLAIM), Watch(folder / CLAIM, WAIT_S), False
    while True:
        with write_errors(folder):
            if claim.take():
                return claim
        lives, holder = watch.look(), watch.holder()
        if lives:
            raise RequestError(
                f"{folder} is in use by {holder}: wait until it has ended, or name another directory"
            )
        if lives is False:
            with write_errors(folder):
                claim.take_over()
            time.sleep(SETTLE_S)
            try:
                claim.check()
            except LostClaimError:
                continue
            log.info("%s: going on in the place of %s, which is dead", folder, holder or "another process")
            return claim
        if should_stop():
            raise StoppedError(
                f"stopped while looking whether {holder or 'another process'} still works in {folder}; nothing was done"
            )
        if not logged:
            logged = True
            log.info(
                "%s was claimed by %s: looking for up to %.0f s whether it still runs",
                folder,
                holder or "another process",
                WAIT_S,
            )
        time.sleep(POLL_S)
