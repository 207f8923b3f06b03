"""Signals that ask a command to save and stop: said at once, also while Python cannot run a handler."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alens.cli import watch

FILES = Path("/proc/self/fd")

BUSY = """
import hashlib, signal, sys, time
from alens.cli.watch import stopping, watching

if "nohup" in sys.argv:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
with stopping() as should_stop, watching():
    print("ready", flush=True)
    if "busy" in sys.argv:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 8_000_000)  # one call, seconds long: no handler runs in it
    else:
        end = time.monotonic() + 2
        while time.monotonic() < end and not should_stop():
            time.sleep(0.01)
    print("asked" if should_stop() else "not asked", flush=True)
"""


def run(number: signal.Signals, *how: str) -> tuple[float, str, str]:
    """(seconds from the signal to a line, what stderr says, what stdout says)"""
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY, *how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    process.send_signal(number)
    since = time.monotonic()
    line = process.stderr.readline()
    took_s = time.monotonic() - since
    out, err = process.communicate(timeout=300)
    return took_s, line + err, out


@pytest.mark.parametrize("number", watch.SIGNALS, ids=lambda number: number.name)
def test_every_signal_asks_and_is_said_once(number: signal.Signals) -> None:
    _, said, out = run(number)
    assert out == "asked\n"
    assert re.fullmatch(rf"stopping: {number.name} came, what is done is saved first\n", said)


def test_it_is_said_while_one_long_call_runs() -> None:
    took_s, said, out = run(signal.SIGTERM, "busy")
    assert "SIGTERM" in said and out == "asked\n"
    assert took_s < 1.5


def test_what_nohup_ignores_stays_ignored() -> None:
    _, said, out = run(signal.SIGHUP, "nohup")
    assert (said, out) == ("", "not asked\n")


def test_handlers_and_pipes_are_as_before() -> None:
    handlers = [signal.getsignal(number) for number in watch.SIGNALS]
    files = len(list(FILES.iterdir()))
    for _ in range(3):
        with watch.stopping() as should_stop:
            assert not should_stop()
    assert [signal.getsignal(number) for number in watch.SIGNALS] == handlers
    assert len(list(FILES.iterdir())) == files
    assert signal.set_wakeup_fd(-1) == -1
