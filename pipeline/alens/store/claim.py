"""A claim: a file in a directory that says which process works there, and shows that this process lives.

In: the path of the claim's file. Out: a `Claim`, held by one process at a time, and a `Watch` of a claim that another
holds. A claim is advisory, not a lock: no network file system has locks that survive a killed job. So the holder
checks now and then that the claim is still its own (`check`), always before it writes what the next holder reads.
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

BEAT_S = 5.0
"""How often the holder shows that it lives: it sets the time of change of the claim's file."""

STALE_S = 180.0
"""A holder without a beat for so long counts as dead, where waiting costs nothing."""

READ_BYTES = 4096
"""More bytes than any claim has."""


class LostClaimError(Exception):
    """Another process took over the claim, or the claim was deleted. The caller turns this into a message that names
    the work."""


@dataclass(frozen=True)
class Holder:
    """Who holds a claim, as its file says."""

    host: str
    pid: int
    token: str
    namespace: str = ""
    """The namespace of `pid`: containers on one host may share its name and number their processes anew."""
    since: float | None = None
    """When it took the claim, by the clock of its host: seconds since 1970. None in a claim of an earlier alens."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @classmethod
    def me(cls) -> Self:
        """This process, with a token that no other claim has."""
        return cls(socket.gethostname(), os.getpid(), secrets.token_hex(8), _namespace(), time.time())

    @property
    def is_dead(self) -> bool:
        """Whether the holder is known to be dead: a process of this host that has ended. On other hosts, only missing
        beats show it."""
        if self.host != socket.gethostname() or self.namespace not in ("", _namespace()) or self.pid <= 0:
            return False
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except OSError:
            return False
        return False


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


class Claim:
    """A claim that this process holds inside its `with` block. `check` raises once another process has taken it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._own = Holder.me()
        self._over = threading.Event()
        self._lost = threading.Event()
        self._beats = threading.Thread(target=self._beat, daemon=True, name="alens claim")

    def take(self) -> bool:
        """Take the claim if nobody holds it: True if that succeeded. Of several processes that try at once, one gets True."""
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
        """Replace the claim of a dead holder. Where several processes do so, the last one holds it."""
        put(self._path, json.dumps(vars(self._own)).encode())

    def check(self) -> None:
        """Raises `LostClaimError` when this process no longer holds the claim."""
        if self._is_lost():
            self._lost.set()
            raise LostClaimError

    @property
    def is_lost(self) -> bool:
        """Whether a beat or `check` has seen that this process lost the claim. Reads nothing."""
        return self._lost.is_set()

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

    def _is_lost(self) -> bool:
        try:
            text = _text(self._path)
        except FileNotFoundError:
            return True
        except OSError:
            return False  # the claim stays while a file system is away
        return _holder(text) != self._own

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            if self._is_lost():
                self._lost.set()
                return
            with contextlib.suppress(OSError):
                os.utime(self._path)


def read(path: Path) -> Holder | None:
    """The holder of a claim; None when there is no claim, or its file is not written yet."""
    try:
        return _holder(_text(path))
    except OSError:
        return None


def _text(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(READ_BYTES)


def _holder(text: bytes) -> Holder | None:
    try:
        body: dict[str, Any] = json.loads(text)
        host, token, namespace = str(body["host"]), str(body["token"]), str(body.get("namespace", ""))
        since = None if body.get("since") is None else float(body["since"])
        return Holder(host, int(body["pid"]), token, namespace, since)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


class Watch:
    """Watches the claim of another process. It uses the clock of this host alone, because the clocks of hosts
    differ."""

    def __init__(self, path: Path, stale_s: float = STALE_S) -> None:
        self._path, self._stale_s = path, stale_s
        self._seen: tuple[Holder | None, int] | None = None
        self._since = time.monotonic()

    def holder(self) -> Holder | None:
        return read(self._path)

    def look(self) -> bool | None:
        """Whether the holder lives: True after a beat, False when it is dead or has shown no beat for `stale_s`.

        None while that is not known yet, and where there is no claim.
        """
        try:
            with self._path.open(
                "rb"
            ) as file:  # NFS asks its server anew when a file is opened, not for a stat alone
                state = (_holder(file.read(READ_BYTES)), os.fstat(file.fileno()).st_mtime_ns)
        except OSError:
            return None
        holder, before = state[0], self._seen
        if state != before:
            self._seen, self._since = state, time.monotonic()
        if holder is not None and holder.is_dead:
            return False
        if before is not None and before[0] == holder is not None and before != state:
            return True
        return False if time.monotonic() - self._since > self._stale_s else None

    def is_stale(self) -> bool:
        """Whether the holder is dead, or has shown no beat for `stale_s`."""
        return self.look() is False
