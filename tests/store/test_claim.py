"""One job makes the plan; a claim whose holder is dead is taken over, one whose holder lives is not."""

import errno
import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from alens.store import claim as claims
from alens.store.claim import Claim, LostClaimError, Watch, read


def hold(path: Path, *, host: str | None = None, pid: int | None = None) -> None:
    """The claim of another job."""
    body = {"host": host or socket.gethostname(), "pid": pid or os.getpid(), "token": "theirs"}
    path.write_text(json.dumps(body))


DEAD = 2**31 - 1
"""A number that no process has: Linux gives numbers below 2**22."""


def test_one_of_many_takes_it(tmp_path: Path) -> None:
    start = threading.Barrier(8)
    taken: list[bool] = []

    def run() -> None:
        start.wait()
        taken.append(Claim(tmp_path / "claim").take())

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [False] * 7 + [True]


def test_it_says_who_holds_it_and_goes_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    claim = Claim(path)
    assert claim.take()
    with claim:
        claim.check()
        assert str(read(path)) == f"process {os.getpid()} on {socket.gethostname()}"
    assert not path.exists()


def test_it_goes_when_its_holder_fails(tmp_path: Path) -> None:
    claim = Claim(tmp_path / "claim")
    assert claim.take()
    with pytest.raises(ValueError, match="broken"), claim:
        raise ValueError("broken")
    assert not (tmp_path / "claim").exists()


def test_who_was_slow_notices_and_leaves_the_other_claim_alone(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    slow, fast = Claim(path), Claim(path)
    assert slow.take()
    with slow:
        fast.take_over()
        with pytest.raises(LostClaimError):
            slow.check()
        fast.check()
    fast.check()


def test_its_beats_notice_that_it_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_S", 0.02)
    path = tmp_path / "claim"
    slow = Claim(path)
    assert slow.take()
    with slow:
        assert not slow.is_lost
        Claim(path).take_over()
        deadline = time.monotonic() + 120
        while not slow.is_lost:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert path.exists()


def test_a_file_system_that_is_away_takes_nobodys_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = Claim(tmp_path / "claim")
    assert claim.take()

    def away(path: Path) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patched:
        patched.setattr(claims, "_text", away)
        claim.check()
    (tmp_path / "claim").unlink()
    with pytest.raises(LostClaimError):
        claim.check()


def test_a_beat_shows_that_the_holder_lives(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    hold(path, host="elsewhere")
    watch = Watch(path)
    assert watch.look() is None
    os.utime(path, (1, 1))
    assert watch.look() is True
    hold(path, host="another")
    assert watch.look() is None  # a new holder has not beaten yet


def test_a_dead_process_of_this_host_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    hold(path, pid=DEAD)
    assert Watch(path).is_stale()


def test_a_number_of_another_container_says_nothing(tmp_path: Path) -> None:
    """Containers that share the network of their host have its name, but number their own processes."""
    path = tmp_path / "claim"
    body = {"host": socket.gethostname(), "pid": DEAD, "token": "theirs", "namespace": "pid:[1]"}
    path.write_text(json.dumps(body))
    assert not Watch(path).is_stale()
    path.write_text(json.dumps({**body, "namespace": str(Path("/proc/self/ns/pid").readlink())}))
    assert Watch(path).is_stale()


def test_the_living_and_other_hosts_are_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    for host, pid in ((None, os.getpid()), ("elsewhere", DEAD)):
        hold(path, host=host, pid=pid)
        assert not Watch(path).is_stale()


def test_without_a_beat_a_claim_grows_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(claims.time, "monotonic", lambda: now_s)
    path = tmp_path / "claim"
    hold(path, host="elsewhere")
    watch = Watch(path)
    assert not watch.is_stale()
    now_s += 0.75 * claims.STALE_S
    os.utime(path, (1, 1))
    assert not watch.is_stale()
    now_s += 0.75 * claims.STALE_S
    assert not watch.is_stale()  # the beat counted
    now_s += 0.75 * claims.STALE_S
    assert watch.is_stale()


def test_its_holder_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_S", 0.02)
    path = tmp_path / "claim"
    claim = Claim(path)
    assert claim.take()
    os.utime(path, (0, 0))
    with claim:
        deadline = time.monotonic() + 120
        while path.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"host": "x"}', "[" * 9999, '{"host": "x", "pid": 1e999, "token": ""}']
)
def test_a_claim_that_is_not_written_yet_has_no_known_holder(tmp_path: Path, text: str) -> None:
    (tmp_path / "claim").write_text(text)
    assert read(tmp_path / "claim") is None
    assert not Watch(tmp_path / "claim").is_stale()


def test_there_is_nothing_to_take_over_where_no_claim_is(tmp_path: Path) -> None:
    assert read(tmp_path / "claim") is None
    assert not Watch(tmp_path / "claim").is_stale()
