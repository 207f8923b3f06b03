"""How much longer a stage will take, from how fast it went lately.

In: how much was done at which time. Out: seconds. The pace of an earlier run says nothing about this one, and the pace
at the start of a stage says little later: caches fill, lenses end, other work comes to the machine.
"""

from collections import deque

LATELY_S = 60.0
"""A pace is taken from at least this much time, where there is so much."""
SHARE = 1 / 3
"""The share of a long stage that counts, its last: a slow step or an evaluation does not make the estimate jump."""


class Pace:
    """The pace of one stage. Times are in seconds, on any steady clock."""

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
        """Seconds until `total` units are done; None before the first step of this run."""
        (since, before), (latest, done) = self._marks[0], self._marks[-1]
        if done == before:
            return None
        under_way_s = min(now - latest, latest - self._marks[-2][0])
        return (latest - since) / (done - before) * (total - done) - under_way_s
