"""Who makes the plan: the first job to come says so in a file, and the others wait for it.

In: STORE. Out: a `Claim`, held by one job while it makes tokens and plan. A claim is a courtesy, not a lock:
what two jobs make of the same request is the same, byte for byte, so a claim taken over from a job that
was only slow does no harm. It saves work, and keeps jobs with different settings out of each other's way.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from alens.store.durable import put

BEAT_S = 10.0
"""How often the holder shows that it lives, by the claim's time of change."""

STALE_S = 180.0
"""After so long without a beat its holder is taken for dead. Beats may be seen late over NFS: up to 60 s."""


class LostClaimError(Exception):
    """Another job took the claim over. Never leaves `alens.cache`."""


@dataclass(frozen=True)
class Holder:
    """Who holds a claim, as its file says."""

    host: str
    pid: int
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def is_dead(self) -> bool:
        """Known to be dead: a process of this host that is no more. Of other hosts only beats tell."""
        if self.host != socket.gethostname() or self.pid <= 0:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False


class Claim:
    """Held from `with` to its end; `check` raises once another job has taken it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._own = Holder(socket.gethostname(), os.getpid(), secrets.token_hex(8))
        self._over = threading.Event()
        self._beats = threading.Thread(target=self._beat, daemon=True, name="alens claim")

    def take(self) -> bool:
        """Whether there was no claim, and this is it now. One of any number of jobs gets True."""
        try:
            file = self._path.open("x")
        except FileExistsError:
            return False
        try:
            with file:
                file.write(json.dumps(vars(self._own)))
        except OSError:
            self._path.unlink()
            raise
        return True

    def take_over(self) -> None:
        """Replace a claim whose holder is dead. Of several that do, the last one holds it."""
        put(self._path, json.dumps(vars(self._own)).encode())

    def check(self) -> None:
        """Raises `LostClaimError` when the claim is no longer this job's."""
        if read(self._path) != self._own:
            raise LostClaimError

    def __enter__(self) -> Self:
        self._beats.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._beats.join()
        with contextlib.suppress(OSError):
            if read(self._path) == self._own:
                self._path.unlink()

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            with contextlib.suppress(OSError):
                os.utime(self._path)


def read(path: Path) -> Holder | None:
    """The holder of a claim; None when there is none, or its file is not written yet."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        return Holder(str(found["host"]), int(found["pid"]), str(found["token"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Watch:
    """Watches the claim of another job, by this host's clock alone: clocks of hosts differ."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[Holder | None, int] | None = None
        self._since = time.monotonic()

    def holder(self) -> Holder | None:
        return read(self._path)

    def is_stale(self) -> bool:
        """Whether the holder is dead, or has shown no beat for STALE_S."""
        holder = read(self._path)
        try:
            state = (holder, self._path.stat().st_mtime_ns)
        except OSError:
            return False  # no claim: it can be taken
        if state != self._seen:
            self._seen, self._since = state, time.monotonic()
        return (holder is not None and holder.is_dead) or time.monotonic() - self._since > STALE_S
