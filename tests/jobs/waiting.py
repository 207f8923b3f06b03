"""The real `alens`, but it waits after its second batch or step; run by the fixture `waiting_alens`.

In: the arguments of `alens`. It waits until there is a file `go` where it runs. Meanwhile it puts a file `waiting-PID`,
and `told-to-stop-PID` once it is to stop. With a file `late` its clock is ten hours ahead.
"""

import contextlib
import os
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alens import cli
from alens.cli import watch

stopping = watch.stopping
told: Any = None
seen = -1
"""Batches or steps: a run reports once where it begins, and then after each."""


def report(progress: Any) -> None:
    global seen
    seen += progress.stage == sys.argv[1]
    if seen == 2:
        Path(f"waiting-{os.getpid()}").touch()
    while seen == 2 and not Path("go").exists():
        if told():
            Path(f"told-to-stop-{os.getpid()}").touch()
        time.sleep(0.05)


@contextlib.contextmanager
def remembered(*arguments: Any) -> Iterator[Any]:
    global told
    with stopping(*arguments) as told:
        yield told


def clock_s() -> float:
    return time.monotonic() + 36_000 * Path("late").exists()


if __name__ == "__main__":
    vars(watch).update(
        time=types.SimpleNamespace(monotonic=clock_s),
        stopping=remembered,
        watching=lambda: contextlib.nullcontext(report),
    )
    sys.exit(cli.run(sys.argv[1:]))
