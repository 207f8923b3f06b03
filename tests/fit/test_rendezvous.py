"""Processes meet at a store that listens only where it must; one that waits says for which others, and can be stopped."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable

import pytest

from alens.errors import RequestError, RunError, StoppedError
from alens.fit import rendezvous
from alens.fit.launch import Launch
from alens.fit.rendezvous import meet
from alens.job.progress import never

from .. import ports
from ..sockets import listening, reachable


@pytest.fixture(autouse=True)
def no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)


def at(rank: int, port: int, world_size: int = 3, address: str = "127.0.0.1") -> Launch:
    return Launch(rank=rank, world_size=world_size, local_rank=rank, address=address, port=port)


def soon(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def test_one_process_meets_nobody_and_listens_nowhere() -> None:
    before = listening(os.getpid())
    meet(at(0, 0, 1), never).set("a", "b")
    assert listening(os.getpid()) == before


def test_all_meet_at_one_store_on_the_loopback() -> None:
    stores = {}

    def come(rank: int, port: int) -> None:
        stores[rank] = meet(at(rank, port), never)

    before = listening(os.getpid())
    with ports.leased() as free:
        threads = [threading.Thread(target=come, args=(rank, free[0])) for rank in (2, 1, 0)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stores[0].set("key", "value")
        assert [stores[rank].get("key") for rank in range(3)] == [b"value"] * 3
        new = listening(os.getpid()) - before
        assert len(new) == 1 and reachable(new) == []


def test_who_keeps_the_store_says_who_is_missing_and_gives_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rendezvous, "MEET_S", 2.0)
    monkeypatch.setattr(rendezvous, "SAY_FIRST_S", 0.5)
    with ports.leased() as free, caplog.at_level(logging.INFO, "alens"):
        with pytest.raises(RunError) as caught:
            meet(at(0, free[0], 9), never)
        where = f"processes 1, 2, 3, 4, 5, ... of 9 at 127.0.0.1:{free[0]}"
    assert caplog.messages == [f"waiting for {where}: 1 s so far, 1 s more at most"]
    assert str(caught.value).startswith(f"waited 2 s for {where}, and no longer: start WORLD_SIZE processes")


def test_who_waits_for_process_0_says_so_as_an_error_which_all_processes_show(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rendezvous, "SAY_FIRST_S", 0.1)
    with ports.leased() as free, caplog.at_level(logging.ERROR, "alens"), pytest.raises(StoppedError):
        meet(at(1, free[0]), soon(0.5))
    assert caplog.messages[0].startswith(f"waiting for process 0 of 3 at 127.0.0.1:{free[0]}: 0 s so far")


def test_when_process_0_gives_up_the_others_end_in_a_line() -> None:
    outcome: list[BaseException] = []

    def come(port: int) -> None:
        try:
            meet(at(1, port), never)
        except RunError as error:
            outcome.append(error)

    with ports.leased() as free:
        thread = threading.Thread(target=come, args=(free[0],))
        thread.start()
        with pytest.raises(StoppedError, match="stopped while waiting for process 2 of 3"):
            meet(at(0, free[0]), soon(2))
        thread.join(60)
    assert str(outcome[0]).startswith("process 0 of this fit has ended while 3 met at 127.0.0.1:")


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RequestError, match=rf"^port {port} of 127.0.0.1 is in use, .* set MASTER_PORT"):
            meet(at(0, port), never)


def test_something_else_that_listens_there_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "ANSWER_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(RunError, match=rf"what listens at 127.0.0.1:{port} does not answer as process 0"):
            meet(at(1, port), never)


def test_an_address_of_another_host_is_not_listened_at() -> None:
    """192.0.2.0/24 is for documentation: the address is not of this host, but may lead here, so it listens everywhere."""
    launch = at(0, 1, address="192.0.2.99")
    addresses = [address for _, address in rendezvous._addresses(launch)]
    assert addresses == ["192.0.2.99", ""]
    assert [address for _, address in rendezvous._addresses(at(0, 1))] == ["127.0.0.1"]


def test_a_hosts_name_for_its_own_loopback_is_none_that_others_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian gives a host's own name the address 127.0.1.1 on that host."""
    resolved = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 1)) for address in ("127.0.1.1", "10.0.0.7")
    ]
    monkeypatch.setattr(rendezvous.socket, "getaddrinfo", lambda *_, **__: resolved)
    assert [address for _, address in rendezvous._addresses(at(0, 1, address="node07"))] == ["10.0.0.7", ""]
