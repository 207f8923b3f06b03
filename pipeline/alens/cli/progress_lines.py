"""Progress as plain lines, for logs: `cache 16,384 of 65,536 rows (25 %), 0:38 left; ...`.

In: reports of the work, and calls of `look` from a thread beside it. Out: few lines: the first of a stage once it has
lasted EARLY_S, then one every EVERY_S, also while a single step takes long. Quick stages say nothing. The time left is
taken from how fast the stage went lately: the pace of an earlier run says nothing about this one, and the pace at the
start says little later, because caches fill, lenses end, and other work comes to the machine.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

from alens.job.progress import Progress
from alens.pictures.numbers import clock

EARLY_S = 3.0
EVERY_S = 10.0
LATELY_S = 60.0
"""A pace is taken from at least this much time, where there is so much."""
SHARE = 1 / 3
"""The share of a long stage that counts, its last: a slow step or an evaluation does not make the estimate jump."""


class _Pace:
    """How fast one stage goes. Times are in seconds, on any steady clock."""

    def __init__(self, now: float, done: int) -> None:
        """`done` units were finished when the stage began, by earlier runs."""
        self._began = now
        self._marks = deque([(now, done)])

    def add(self, now: float, done: int) -> None:
        """Record that `done` units are finished by now."""
        if done == self._marks[-1][1]:
            return
        self._marks.append((now, done))
        lately_s = max(LATELY_S, SHARE * (now - self._began))
        while len(self._marks) > 2 and self._marks[1][0] <= now - lately_s:
            self._marks.popleft()

    def left_s(self, now: float, total: int) -> float | None:
        """Seconds until `total` units are done, not below 0; None before the first step of this run."""
        (since, before), (latest, done) = self._marks[0], self._marks[-1]
        if done == before:
            return None
        under_way_s = min(now - latest, latest - self._marks[-2][0])
        return max(0.0, (latest - since) / (done - before) * (total - done) - under_way_s)


class _Stage:
    """A stage that was reported: how far it is, and what was last said about it."""

    def __init__(self, progress: Progress, now: float) -> None:
        self.began = self.changed = now
        self.latest = progress
        self.pace = _Pace(now, progress.done)
        self.said: Progress | None = None
        self.ended = False

    def take(self, progress: Progress, now: float) -> None:
        if progress.done != self.latest.done:
            self.changed = now
        self.latest = progress
        self.pace.add(now, progress.done)

    def line(self, now: float) -> str:
        """How far it is now; `so far` and `at the next` show that the work goes on while no count moves."""
        at = self.latest
        if self.ended and self.said == at:
            return f"still at work, {clock(now - self.changed)} after: {at.stage}"
        repeated = self.said is not None and self.said.done == at.done and not self.ended
        if not at.unit:
            return at.stage + (f", {clock(now - self.began)} so far" if repeated else "") + _note(at)
        if not at.total:
            return f"{at.stage} {at.done:,} {at.unit}, {clock(now - self.began)} so far{_note(at)}"
        line = f"{at.stage} {at.done:,} of {at.total:,} {at.unit} ({100 * at.done // at.total} %)"
        left_s = self.pace.left_s(now, at.total)
        if left_s is not None and at.done < at.total:
            line += f", {clock(left_s)} left"
        if repeated:
            line += f", {clock(now - self.changed)} at the next"
        return line + _note(at)


class ProgressLines:
    """A `Report` that says lines; `look` says those that are due without a report."""

    def __init__(
        self, first: str, say: Callable[[str], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`first` names what is done until the first report."""
        self._say, self._monotonic, self._lock = say, monotonic, threading.Lock()
        began = monotonic()
        self._due_at = began + EARLY_S
        self._now = _Stage(Progress(stage=first), began)
        self._stages = {first: self._now}

    def __call__(self, progress: Progress) -> None:
        with self._lock:
            now = self._monotonic()
            stage = self._stages.get(progress.stage)
            if stage is None or progress.done < stage.latest.done or stage.ended:
                if stage is not None and progress == stage.latest:
                    return
                self._stages[progress.stage] = stage = _Stage(progress, now)
            self._now = stage
            stage.take(progress, now)
            if progress.total is not None and progress.done >= progress.total:
                stage.ended = True
                if stage.said is not None or now - stage.began >= EARLY_S:
                    self._tell(now)
            self._tell_what_is_due(now)

    def look(self) -> None:
        """Say what is due; a thread beside the work calls it now and then."""
        with self._lock:
            self._tell_what_is_due(self._monotonic())

    def _tell_what_is_due(self, now: float) -> None:
        stage = self._now
        early = stage.said is None and not stage.ended and now - stage.began >= EARLY_S
        if early or now >= self._due_at:
            self._tell(now)

    def _tell(self, now: float) -> None:
        self._say(self._now.line(now))
        self._now.said, self._due_at = self._now.latest, now + EVERY_S


def _note(progress: Progress) -> str:
    return f"; {progress.note}" if progress.note else ""
