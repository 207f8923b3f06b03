"""Progress as bars, for a terminal: one for each stage, with its count and the time that is left.

In: reports of the work, and calls of `look` from a thread beside it. Out: bars that rich draws. Quick stages show nothing,
and the bar of a stage that counts nothing goes when the stage ends.
"""

import threading
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Display

from alens.job.progress import Progress
from alens.printable import printable

SHOWN_AFTER_S = 1.0


class ProgressBars:
    """A `Report` that moves bars on `display`; `look` shows those that are due."""

    def __init__(self, first: str, console: Console) -> None:
        """`first` names what is done until the first report."""
        self.display = Display(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[count]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
        )
        self._lock = threading.Lock()
        self._tasks: dict[str, Any] = {}
        self._began: dict[str, float] = {}
        self._now = ""
        self(Progress(stage=first))

    def __call__(self, progress: Progress) -> None:
        with self._lock:
            if progress.stage != self._now:
                self._leave(self._now)
                self._now = progress.stage
            if progress.stage not in self._tasks:
                self._begin(progress)
            self._move(progress)

    def look(self) -> None:
        """Show the bar of the present stage once it has lasted; a thread beside the work calls it now and then."""
        with self._lock:
            if time.monotonic() - self._began[self._now] >= SHOWN_AFTER_S:
                self.display.update(self._tasks[self._now], visible=True)

    def _begin(self, progress: Progress) -> None:
        what = f"{progress.stage} ({progress.unit})" if progress.unit else progress.stage
        self._tasks[progress.stage] = self.display.add_task(
            printable(what), total=None, completed=progress.done, visible=False, count="", note=""
        )
        self._began[progress.stage] = time.monotonic()

    def _move(self, progress: Progress) -> None:
        count = f"{progress.done:,}" if progress.unit else ""
        count += f"/{progress.total:,}" if progress.total else ""
        self.display.update(
            self._tasks[progress.stage],
            completed=progress.done,
            total=progress.total,
            count=count,
            note=printable(progress.note),
        )

    def _leave(self, stage: str) -> None:
        """Remove a bar that was not seen, or that counts nothing."""
        if stage not in self._tasks:
            return
        task = next(task for task in self.display.tasks if task.id == self._tasks[stage])
        if not task.visible or not task.fields["count"]:
            self.display.remove_task(self._tasks.pop(stage))
