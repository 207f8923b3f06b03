"""Ctrl-C, SIGTERM, SIGUSR1 and SIGHUP at any moment: exit code 75, one line, and the next run makes the cache whole.

A process of its own is told to stop while it imports; later moments are tried on forked ones, which start at once.
"""

import collections
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP]
LIMIT_S = 300
SEED = 5

by_signal = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


class Ended(NamedTuple):
    code: int
    stderr: str


def until(what: Callable[[], object]) -> None:
    limit = time.monotonic() + LIMIT_S
    while not what():
        assert time.monotonic() < limit
        time.sleep(0.001)


def listens(pid: int) -> bool:
    """Whether the process has a handler for each of the signals, or is over."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    mask = int(caught[1], 16) if caught else 0
    return "State:\tZ" in status or all(mask >> (number - 1) & 1 for number in SIGNALS)


def stage(store: Path) -> str:
    if not (store / "plan.json").exists():
        return "before the plan"
    if (store / "MANIFEST.json").exists():
        return "after the end"
    return "within the shards"


def stopped(parent: Any, arguments: list[str], log: Path, after_s: float, *numbers: signal.Signals) -> Ended:
    """Starts a run, sends the signals `after_s` seconds after it listens to them, and waits for its end."""
    pid = parent.start(arguments, log)
    until(lambda: listens(pid))
    time.sleep(after_s)
    for number in numbers:
        os.kill(pid, number)  # nobody has waited for it yet, so that the number is still its own
        time.sleep(0.005)
    return Ended(parent.wait(pid), log.read_text())


def stop_at_many_moments(
    work: Any, judge: Any, parent: Any, one_line: Any, folder: Path, moments_s: list[float], *numbers: signal.Signals
) -> None:  # fmt: skip
    fell: collections.Counter[tuple[str, int]] = collections.Counter()
    for index, moment_s in enumerate(moments_s):
        store = folder / f"store-{index}"
        ended = stopped(parent, work.arguments(store), folder / f"{index}.log", moment_s, *numbers)
        fell[stage(store), ended.code] += 1
        assert_stopped(ended, store, one_line, *numbers)
        if store.exists():
            judge.assert_right(store)
        pid = parent.start(work.arguments(store), folder / f"{index}-again.log")
        assert parent.wait(pid) == 0
        judge.assert_whole(store)
        shutil.rmtree(store)
    print(f"\n{'+'.join(number.name for number in numbers)}: {dict(fell)}")


def assert_stopped(ended: Ended, store: Path, one_line: Any, *numbers: signal.Signals) -> None:
    """The run ended well, or saved and stopped. Once the cache is sealed, no handler is left: the signal may end the process."""
    if len(numbers) > 1 and "Exception ignored in" in ended.stderr:
        # The second fell into a destructor: Python prints it there, with a traceback, and goes on.
        assert ended.code in (0, 75, 130) and "KeyboardInterrupt" in ended.stderr, ended
    elif ended.code == 75:
        one_line(ended, 75, "stopped")
        assert not list(store.rglob("*.partial"))
    elif ended.code != 0:
        at_once = ended.code == 130 and numbers[0] == signal.SIGINT  # with a line, unless it was about to end
        assert "Traceback" not in ended.stderr, ended.stderr
        assert at_once or ended.code == -numbers[0], ended
        assert len(numbers) > 1 or stage(store) == "after the end", ended


def moments(count: int, most_s: float) -> list[float]:
    draw = random.Random(SEED)
    return [draw.uniform(0, most_s) for _ in range(count)]


@by_signal
def test_a_signal_at_some_moments(
    longer: Any, longer_judge: Any, warm_parent: Any, pace_s: float, one_line: Any, memory_folder: Path, number: signal.Signals
) -> None:  # fmt: skip
    at_s = [0.0, 0.6 * pace_s]
    stop_at_many_moments(longer, longer_judge, warm_parent, one_line, memory_folder, at_s, number)


@pytest.mark.slow
@by_signal
def test_a_signal_at_many_moments(
    longer: Any, longer_judge: Any, warm_parent: Any, pace_s: float, one_line: Any, memory_folder: Path, number: signal.Signals
) -> None:  # fmt: skip
    at_s = moments(8, pace_s)
    stop_at_many_moments(longer, longer_judge, warm_parent, one_line, memory_folder, at_s, number)


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once(
    longer: Any, longer_judge: Any, warm_parent: Any, pace_s: float, one_line: Any, memory_folder: Path
) -> None:
    twice = (signal.SIGINT, signal.SIGINT)
    at_s = moments(12, pace_s)
    stop_at_many_moments(longer, longer_judge, warm_parent, one_line, memory_folder, at_s, *twice)


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(n, marks=pytest.mark.slow) for n in SIGNALS if n != signal.SIGTERM)],
    ids=lambda number: number.name,
)
def test_a_signal_while_it_imports(
    work: Any, judge: Any, run_alens: Any, one_line: Any, memory_folder: Path, number: signal.Signals
) -> None:
    """Most of the seconds before the first row go into imports: a job that is stopped then is to be run again, too."""
    store = memory_folder / "store"
    process = subprocess.Popen(
        [sys.executable, "-m", "alens", *work.arguments(store)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        until(lambda: "libtorch_cpu" in Path(f"/proc/{process.pid}/maps").read_text())
        process.send_signal(number)
        _, stderr = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
        process.wait()
    one_line(Ended(process.returncode, stderr), 75, "stopped", "run again")
    assert run_alens(*work.arguments(store)).code == 0
    judge.assert_whole(store)
