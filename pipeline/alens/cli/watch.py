"""Watching long work: progress on a terminal or in a log, and signals that ask it to save and stop."""

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import click

from alens.progress import Progress, Report, ShouldStop, silent

LOG_EVERY_S = 10.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def speaks_for_all() -> bool:
    """Whether this is the process of a fit that prints: the only one, or rank 0."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def watching() -> Iterator[Report]:
    """A report that draws on a terminal, or prints a line every LOG_EVERY_S seconds into a log.

    Of the processes of one fit only the first shows anything. Afterwards the logger's level is what it was.
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
            with _handler(logger, logging.StreamHandler(sys.stderr)):
                yield _Lines()
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _terminal(logger: logging.Logger) -> Iterator[Report]:
    from rich.console import Console
    from rich.logging import RichHandler
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    handler = RichHandler(console=console, show_time=False, show_path=False, show_level=False)
    with Bar(*columns, console=console) as bar, _handler(logger, handler):
        tasks: dict[str, Any] = {}

        def report(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bar.add_task(
                    f"{progress.stage} ({progress.unit})", completed=progress.done, note=""
                )
            bar.update(
                tasks[progress.stage], completed=progress.done, total=progress.total, note=progress.note
            )

        yield report


@contextlib.contextmanager
def _handler(logger: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Lines:
    """Plain lines for logs: `cache 16,384 of 65,536 rows (25 %), 0:38 left; ...`."""

    def __init__(self) -> None:
        self._stage = ""
        self._began = self._printed = 0.0
        self._first_done = 0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage != self._stage:
            self._stage, self._began, self._printed, self._first_done = (
                progress.stage,
                now,
                now,
                progress.done,
            )
        finished = progress.done == progress.total
        if finished or now - self._printed >= LOG_EVERY_S:
            self._printed = now
            click.echo(self._line(progress, now), err=True)

    def _line(self, progress: Progress, now: float) -> str:
        line = f"{progress.stage} {progress.done:,}"
        if progress.total:
            line += f" of {progress.total:,} {progress.unit} ({100 * progress.done // progress.total} %)"
            fresh = progress.done - self._first_done
            if fresh > 0 and progress.done < progress.total:
                left_s = round((now - self._began) / fresh * (progress.total - progress.done))
                line += f", {left_s // 60}:{left_s % 60:02d} left"
        else:
            line += f" {progress.unit}"
        return line + (f"; {progress.note}" if progress.note else "")


@contextlib.contextmanager
def stopping(max_minutes: float | None = None) -> Iterator[ShouldStop]:
    """True once SIGINT, SIGTERM or SIGUSR1 came or the time is over. A second SIGINT stops at once."""
    asked: list[int] = []
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes

    def handle(number: int, _: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield lambda: bool(asked) or (deadline is not None and time.monotonic() >= deadline)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
