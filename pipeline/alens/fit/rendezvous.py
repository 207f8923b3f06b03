"""Where the processes of a fit meet: a store of keys that rank 0 keeps, and that the others reach over TCP.

In: a `Launch`. Out: the store, once all processes are there. Until then each process can be stopped, and says which
others it waits for. The store has no password, so it listens only where it must: not at all for one process, on the
loopback where MASTER_ADDR is one, else on the address that MASTER_ADDR has on this host.
"""

import contextlib
import errno
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from torch.distributed import DistError, HashStore, Store, TCPStore  # type: ignore[attr-defined]  # documented there

from alens.errors import RequestError, RunError, StoppedError
from alens.fit.launch import Launch, is_loopback
from alens.job.progress import ShouldStop

log = logging.getLogger("alens")

MEET_S = 300.0
"""How long the first of the processes waits for the last."""

ANSWER_S = 20.0
"""How long the store may take to answer."""

SAY_FIRST_S, SAY_EVERY_S = 2.0, 30.0
POLL_S = 0.2

NAMED = 5
"""How many processes a message names."""


def meet(launch: Launch, should_stop: ShouldStop) -> Store:
    """The store of these processes, once all are there.

    Raises `RunError` when some have not come within MEET_S, `StoppedError` when asked to stop before, `RequestError`
    where rank 0 cannot listen.
    """
    if launch.world_size == 1:
        return HashStore()
    until = time.monotonic() + MEET_S
    store: Store
    if launch.rank == 0 and not _has_agent():
        store = _kept(launch)
    else:
        _wait(launch, lambda: [] if _listens(launch) else [0], until, should_stop, logging.ERROR)
        store = _reached(launch, should_stop)
    try:
        store.set(_key(launch.rank), "")
        _wait(launch, lambda: _missing(store, launch), until, should_stop, logging.INFO)
    except (DistError, ConnectionError):
        raise RunError(
            f"process 0 of this fit has ended while {launch.world_size} met at {_where(launch)}: its own lines say why"
        ) from None
    return store


def _has_agent() -> bool:
    """Whether torchrun keeps the store, in its own process."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _where(launch: Launch) -> str:
    return f"{launch.address}:{launch.port}"


def _key(rank: int) -> str:
    return f"alens/here/{rank}"


def _missing(store: Store, launch: Launch) -> list[int]:
    ranks = range(launch.world_size)
    if store.check([_key(rank) for rank in ranks]):
        return []
    return [rank for rank in ranks if not store.check([_key(rank)])]


def _wait(
    launch: Launch, missing: Callable[[], list[int]], until: float, should_stop: ShouldStop, level: int
) -> None:
    """Wait until no process is missing; log now and then which are, at `level` (most processes show errors only)."""
    began = time.monotonic()
    say_at = began + SAY_FIRST_S
    while ranks := missing():
        now = time.monotonic()
        for_whom = f"{_names(ranks)} of {launch.world_size} at {_where(launch)}"
        if should_stop():
            raise StoppedError(f"stopped while waiting for {for_whom}; nothing was begun, run again to go on")
        if now >= until:
            raise RunError(
                f"waited {now - began:.0f} s for {for_whom}, and no longer: start WORLD_SIZE processes, each with a RANK "
                "of its own, on hosts that reach MASTER_ADDR and MASTER_PORT"
            )
        if now >= say_at:
            say_at = now + SAY_EVERY_S
            log.log(
                level,
                "waiting for %s: %.0f s so far, %.0f s more at most",
                for_whom,
                now - began,
                until - now,
            )
        time.sleep(POLL_S)


def _names(ranks: list[int]) -> str:
    """`process 3`, or `processes 3, 4, 5, ...`."""
    named = ", ".join(map(str, ranks[:NAMED])) + (", ..." if len(ranks) > NAMED else "")
    return f"process{'es' if len(ranks) > 1 else ''} {named}"


def _listens(launch: Launch) -> bool:
    """Whether anything listens there. Torch would log each time that it does not reach a store."""
    with contextlib.suppress(OSError), socket.create_connection((launch.address, launch.port), POLL_S * 5):
        return True
    return False


def _reached(launch: Launch, should_stop: ShouldStop) -> Store:
    """The store of another process, asked in a thread: torch waits for ever for one that does not answer."""
    answers: queue.SimpleQueue[Store | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(
                TCPStore(
                    launch.address,
                    launch.port,
                    launch.world_size,
                    is_master=False,
                    timeout=timedelta(seconds=MEET_S),
                    wait_for_workers=False,
                )
            )
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True, name="alens meeting").start()
    until = time.monotonic() + ANSWER_S
    while time.monotonic() < until:
        with contextlib.suppress(queue.Empty):
            answer = answers.get(timeout=POLL_S)
            if isinstance(answer, Exception):
                break
            return answer
        if should_stop():
            raise StoppedError(
                f"stopped before {_where(launch)} had answered; nothing was begun, run again to go on"
            )
    raise RunError(
        f"what listens at {_where(launch)} does not answer as process 0 of this fit: set MASTER_PORT to another port"
    )


def _kept(launch: Launch) -> TCPStore:
    """The store that this process keeps."""
    listener = _listener(launch)
    return TCPStore(
        launch.address,
        launch.port,
        launch.world_size,
        is_master=True,
        timeout=timedelta(seconds=MEET_S),
        wait_for_workers=False,
        master_listen_fd=listener.detach(),  # the store closes it
    )


def _listener(launch: Launch) -> socket.socket:
    """A socket bound to the address that the others reach, or to all addresses where that one is not known."""
    for family, address in _addresses(launch):
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, launch.port))
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                raise RequestError(
                    f"port {launch.port} of {launch.address} is in use, perhaps by another fit: set MASTER_PORT to another"
                ) from None
            continue
        return listener
    raise RequestError(
        f"process 0 cannot listen at {_where(launch)}: set MASTER_ADDR to its host and MASTER_PORT to a free port"
    )


def _addresses(launch: Launch) -> list[tuple[socket.AddressFamily, str]]:
    """Where to listen, best first. A host may know its own name as its loopback: others reach another address."""
    everywhere: tuple[socket.AddressFamily, str] = (socket.AF_INET, "")
    try:
        resolved = socket.getaddrinfo(launch.address, launch.port, type=socket.SOCK_STREAM)
    except OSError:
        return [everywhere]
    addresses: list[tuple[socket.AddressFamily, str]] = [
        (family, str(where[0])) for family, _, _, _, where in resolved
    ]
    if launch.all_local:
        return addresses
    return [*(pair for pair in addresses if not is_loopback(pair[1])), everywhere]
