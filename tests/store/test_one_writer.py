"""A second process in a directory is refused while the first lives, and takes its place when it is dead."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from alens.errors import RequestError, RunError, StoppedError
from alens.store import claim as claims
from alens.store import one_writer
from alens.store.one_writer import CLAIM, check, claimed

DEAD = 2**31 - 1
"""A number that no process has."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_S", 0.1)
    monkeypatch.setattr(one_writer, "WAIT_S", 1.5)
    monkeypatch.setattr(one_writer, "POLL_S", 0.02)
    monkeypatch.setattr(one_writer, "SETTLE_S", 0.1)


def hold(folder: Path, host: str, pid: int = DEAD) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / CLAIM).write_text(json.dumps({"host": host, "pid": pid, "token": "theirs"}))
    return folder / CLAIM


@contextlib.contextmanager
def beating(claim: Path) -> Iterator[None]:
    """Keep a claim as a process of another host does."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.1):
            os.utime(claim)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_the_second_is_refused_and_told_by_whom(tmp_path: Path, quick: None) -> None:
    with claimed(tmp_path), pytest.raises(RequestError) as caught, claimed(tmp_path):
        raise AssertionError("two hold it")
    assert str(caught.value) == (
        f"{tmp_path} is in use by process {os.getpid()} on {socket.gethostname()}: "
        "wait until it has ended, or name another directory"
    )
    with claimed(tmp_path):
        pass


def test_at_its_true_pace_it_is_refused_within_30_s(tmp_path: Path) -> None:
    began = time.monotonic()
    with claimed(tmp_path), pytest.raises(RequestError, match="is in use by process"), claimed(tmp_path):
        pass
    assert time.monotonic() - began < 30
    assert claims.BEAT_S < one_writer.WAIT_S < 30


def test_a_dead_process_of_this_host_is_followed_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    hold(tmp_path, socket.gethostname())
    with caplog.at_level("INFO", "alens"), claimed(tmp_path) as claim:
        claim.check()
    assert time.monotonic() - began < 0.8 * one_writer.WAIT_S
    assert f"going on in the place of process {DEAD} on {socket.gethostname()}, which is dead" in caplog.text


def test_a_process_that_was_killed_is_followed(tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom alens.store.one_writer import claimed\n"
        "with claimed(Path(sys.argv[1])):\n    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert (tmp_path / CLAIM).exists()
    with claimed(tmp_path) as claim:
        claim.check()
    assert not (tmp_path / CLAIM).exists()


def test_without_a_beat_a_process_of_another_host_is_followed(
    tmp_path: Path, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    hold(tmp_path, "elsewhere")
    with caplog.at_level("INFO", "alens"), claimed(tmp_path) as claim:
        claim.check()
    assert (
        "looking for up to 2 s whether it still runs" in caplog.text or "looking for up to 1 s" in caplog.text
    )


def test_with_beats_it_is_not(tmp_path: Path, quick: None) -> None:
    claim = hold(tmp_path, "elsewhere", 7)
    with (
        beating(claim),
        pytest.raises(RequestError, match="in use by process 7 on elsewhere"),
        claimed(tmp_path),
    ):
        pass
    assert json.loads(claim.read_text())["token"] == "theirs"


def test_a_claim_that_was_never_written_is_followed(tmp_path: Path, quick: None) -> None:
    (tmp_path / CLAIM).touch()
    with claimed(tmp_path) as claim:
        claim.check()


def test_of_several_that_follow_one_holds_it(tmp_path: Path, quick: None) -> None:
    hold(tmp_path, socket.gethostname())
    start, done = threading.Barrier(6), threading.Event()
    held: list[bool] = []

    def run() -> None:
        start.wait()
        try:
            with claimed(tmp_path) as claim:
                held.append(True)
                done.wait(20)
                claim.check()
        except RequestError:
            held.append(False)
        if len(held) == 6:
            done.set()

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(held) == [False] * 5 + [True]


def test_looking_can_be_stopped(tmp_path: Path) -> None:
    claim = hold(tmp_path, "elsewhere")
    asked = iter([False, True])
    with (
        pytest.raises(
            StoppedError, match=r"^stopped while looking whether process \d+ on elsewhere still works in"
        ),
        claimed(tmp_path, lambda: next(asked)),
    ):
        pass
    assert claim.exists()


def test_who_was_suspended_writes_nothing_more(tmp_path: Path) -> None:
    with claimed(tmp_path) as claim:
        check(claim, tmp_path)
        hold(tmp_path, "elsewhere", 7)
        with pytest.raises(RunError, match=r"its alens.claim was taken over by process 7 on elsewhere"):
            check(claim, tmp_path)
        assert claim.is_lost
    assert (tmp_path / CLAIM).exists()
    (tmp_path / CLAIM).unlink()
    with pytest.raises(RunError, match=r"its alens\.claim was deleted"):
        check(claim, tmp_path)


def test_a_directory_that_was_made_and_is_left_empty_goes_again(tmp_path: Path) -> None:
    with claimed(tmp_path / "new/lenses"):
        assert (tmp_path / "new/lenses" / CLAIM).exists()
    assert not (tmp_path / "new/lenses").exists()
    (tmp_path / "there").mkdir()
    with claimed(tmp_path / "there"):
        pass
    assert (tmp_path / "there").exists()
    with claimed(tmp_path / "used"):
        (tmp_path / "used/lens.json").touch()
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["lens.json"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot write"), claimed(tmp_path / "file"):
        pass


def test_what_a_process_left_that_was_killed_while_it_claimed_goes(tmp_path: Path, quick: None) -> None:
    """One of another host may still be writing."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, theirs = (
        tmp_path / f".{CLAIM}.{host}-{dead.pid}-1886e255.partial"
        for host in (socket.gethostname(), "elsewhere")
    )
    left.touch()
    theirs.touch()
    with claimed(tmp_path):
        assert not left.exists() and theirs.exists()
