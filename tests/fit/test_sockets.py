"""Where a fit listens: at no address that another machine reaches, unless processes of several machines meet there."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .. import ports
from ..sockets import listening, reachable

LIMIT_S = 400
LOOK_S = 0.05
SIZES = ["--batch-rows", "128", "--eval-rows", "512", "--device", "cpu"]


@pytest.fixture
def started() -> Iterator[list["subprocess.Popen[str]"]]:
    """Processes; what still runs at the end of the test is killed."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def start(*arguments: object, **environment: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "alens", *map(str, arguments)],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            **{name: str(value) for name, value in environment.items()},
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_over(*processes: "subprocess.Popen[str]") -> set[str]:
    """All addresses at which these processes ever listened."""
    addresses: set[str] = set()
    end = time.monotonic() + LIMIT_S
    while any(process.poll() is None for process in processes):
        assert time.monotonic() < end
        for process in processes:
            addresses |= listening(process.pid)
        time.sleep(LOOK_S)
    return addresses


def of_rank(rank: int, port: int, address: str = "127.0.0.1") -> dict[str, object]:
    return {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": address, "MASTER_PORT": port}


def test_sockets_are_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)), socket.create_server(("::1", 0), family=socket.AF_INET6):
        before = listening(os.getpid())
        assert len(before) >= 2 and not reachable(before)
        for family, address in ((socket.AF_INET, ""), (socket.AF_INET6, "::")):
            with socket.create_server((address, 0), family=family):
                assert len(reachable(listening(os.getpid()))) == 1


@pytest.mark.parametrize("command", ["fit", pytest.param("sweep", marks=pytest.mark.slow)])
def test_one_process_listens_at_nothing_that_another_machine_reaches(
    planted_store: Path, tmp_path: Path, started: list["subprocess.Popen[str]"], command: str
) -> None:
    grid = tmp_path / "sweep.toml"
    grid.write_text("steps = 5\nbatch_rows = 128\neval_rows = 512\n[grid]\nlr = [0.01, 0.03]\n")
    arguments: dict[str, tuple[object, ...]] = {
        "fit": ("fit", planted_store, tmp_path / "out", "--steps", 5, *SIZES),
        "sweep": ("sweep", grid, planted_store, tmp_path / "out", "--device", "cpu"),
    }
    started.append(start(*arguments[command]))
    assert reachable(until_over(*started)) == []
    assert started[0].returncode == 0, started[0].communicate()


@pytest.mark.slow
def test_processes_of_one_machine_neither_and_when_one_is_killed_the_other_ends_in_a_line(
    planted_store: Path, tmp_path: Path, started: list["subprocess.Popen[str]"]
) -> None:
    fit = ("fit", planted_store, tmp_path / "lenses", "--steps", 10**6, "--tolerance", 0, *SIZES)
    with ports.leased() as free:
        started += [start(*fit, **of_rank(rank, free[0])) for rank in range(2)]
        end = time.monotonic() + LIMIT_S
        addresses: set[str] = set()
        while not (tmp_path / "lenses/log.jsonl").exists():
            assert time.monotonic() < end and all(process.poll() is None for process in started)
            for process in started:
                addresses |= listening(process.pid)
            time.sleep(LOOK_S)
        started[1].send_signal(signal.SIGKILL)
        began = time.monotonic()
        addresses |= until_over(*started)
    assert addresses and reachable(addresses) == []
    assert time.monotonic() - began < 60
    _, stderr = started[0].communicate()
    assert started[0].returncode == 1 and "Traceback" not in stderr
    line = stderr.splitlines()[-1]
    assert line.startswith("alens: another process of this fit has ended, or was not reached any more (")
    assert line.endswith("run again to go on from the last checkpoint") and "gloo" not in line


def test_a_process_that_waits_for_another_says_so_and_can_be_stopped(
    planted_store: Path, tmp_path: Path, started: list["subprocess.Popen[str]"]
) -> None:
    with ports.leased() as free:
        process = start("fit", planted_store, tmp_path / "lenses", *SIZES, **of_rank(0, free[0]))
        started.append(process)
        assert process.stderr is not None
        said = iter(process.stderr.readline, "")
        line = next(line for line in said if line.startswith("waiting for"))
        assert line.startswith(f"waiting for process 1 of 2 at 127.0.0.1:{free[0]}: 2 s so far, 298 s more")
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        rest = list(said)
        assert process.wait(LIMIT_S) == 75 and time.monotonic() - began < 15
    assert rest[-1] == (
        f"alens: stopped while waiting for process 1 of 2 at 127.0.0.1:{free[0]}; nothing was begun, run again to go on\n"
    )
    assert len(rest) <= 2  # and that the signal came
    assert [path.name for path in (tmp_path / "lenses").iterdir()] == ["stopped.json"]  # job scripts go by it
    assert json.loads((tmp_path / "lenses/stopped.json").read_text())["step"] == 0
