"""Watching long work: progress on a terminal or in a log, and signals that ask it to save and stop."""

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import click

from alens.cli.console import OneLine, installed, tell
from alens.cli.progress_lines import ProgressLines
from alens.job.progress import Report, ShouldStop, silent
from alens.model.libraries import importing

LOOK_EVERY_S = 0.5
MOST_TELLING_S = 1.0
"""How long to wait for the line that says that a signal came, where it goes to a slow place."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Signals that ask a command to save and stop. SIGHUP comes when a terminal closes."""
OVER = 0
"""A number that no signal has: it ends the thread."""

log = logging.getLogger("alens")


def speaks_for_all() -> bool:
    """Whether this is the process of a fit that prints: the only one, or rank 0."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def watching() -> Iterator[Report]:
    """A report that draws bars on a terminal, or says a line now and then into a log (see `alens.cli.progress_lines`).

    Only the first process of a fit shows anything. Afterwards the logger's level is what it was. Enter it before the heavy
    imports of a command: they take seconds, and the report begins with them.
    """
    logger = logging.getLogger("alens")
    before = logger.level
    logger.setLevel(logging.INFO if speaks_for_all() else logging.ERROR)
    try:
        if not speaks_for_all():
            yield silent
        elif sys.stderr.isatty():
            with _terminal(logger) as report:
                yield report
        else:
            lines = ProgressLines(_first(), tell)
            with _handler(logger, logging.StreamHandler(sys.stderr)), _looking(lines.look):
                yield lines
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """For the heavy imports of a command, and the loading of its model: the collector rests, and is then as it was.

    In a process that runs this one command it never looks at what was made within the block: half a million objects,
    which live as long as the process (docs/decisions/0073). In a notebook or a test it does.
    """
    with importing():
        yield
        if installed():
            gc.freeze()


def _first() -> str:
    """What is shown until the first report of a command."""
    context = click.get_current_context(silent=True)
    return f"{context.command_path if context else 'alens'}: starting"


@contextlib.contextmanager
def _terminal(logger: logging.Logger) -> Iterator[Report]:
    from rich.logging import RichHandler

    from alens.cli import tables
    from alens.cli.progress_bars import ProgressBars

    console = tables.console(stderr=True)
    handler = RichHandler(console=console, show_time=False, show_path=False, show_level=False)
    bars = ProgressBars(_first(), console)
    with bars.display, _handler(logger, handler), _looking(bars.look):
        yield bars


@contextlib.contextmanager
def _looking(look: Callable[[], None]) -> Iterator[None]:
    """Calls `look` every LOOK_EVERY_S from a thread: work inside one long step reports nothing itself."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_EVERY_S):
            look()

    thread = threading.Thread(target=watch, name="alens-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def _handler(logger: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    handler.setFormatter(OneLine())
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextlib.contextmanager
def stopping(max_minutes: float | None = None) -> Iterator[ShouldStop]:
    """A function that is true once one of SIGNALS came or the time is over; a line says at once that a signal came.

    A second SIGINT stops at once. A signal that nohup ignores stays ignored.
    """
    asked: list[int] = []
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes

    def handle(number: int, _: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    numbers = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        with _announced(numbers) as announced:

            def should_stop() -> bool:
                if asked:
                    announced.wait(MOST_TELLING_S)  # or this process may have ended by then
                return bool(asked) or (deadline is not None and time.monotonic() >= deadline)

            yield should_stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _announced(numbers: Sequence[signal.Signals]) -> Iterator[threading.Event]:
    """Inside, a line tells of the first of these signals at once, and then the event is set.

    Python runs handlers of signals between two of its own instructions, in the main thread: a long product or write
    holds them up. The system writes the number of a signal into a pipe at once, and a thread waits at its other end.
    The signals must have handlers. Main thread only.
    """
    announced = threading.Event()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    thread = threading.Thread(
        target=_tell, args=(reading, set(numbers), announced), name="alens-signals", daemon=True
    )
    thread.start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield announced
    finally:
        signal.set_wakeup_fd(before)
        os.write(writing, bytes([OVER]))
        thread.join()
        os.close(writing)
        os.close(reading)


def _tell(reading: int, numbers: set[signal.Signals], announced: threading.Event) -> None:
    while (number := os.read(reading, 1)[0]) != OVER:
        if number in numbers and not announced.is_set():
            log.info("stopping: %s came, what is done is saved first", signal.Signals(number).name)
            announced.set()
