"""How long a stage will take yet, from how fast it went lately.

In: how much was done at which time. Out: seconds. What an earlier run did is no measure of this one, and what a stage
did at its start is a poor one later: caches fill, lenses end, other work comes to the machine.
"""

from collections import deque

LATELY_S = 60.0
"""The least time that a pace is taken from, where there is so much."""
SHARE = 1 / 3
"""The last third of a long stage counts: a slow step or an evaluation now and then does not throw the figure about."""


class Pace:
    """One stage; times are those of any steady clock, in seconds."""

    def __init__(self, now: float, done: int) -> None:
        """`done` units are there when the stage begins, those of earlier runs."""
        self._began = now
        self._marks = deque([(now, done)])

    def add(self, now: float, done: int) -> None:
        """So much is done."""
        if done == self._marks[-1][1]:
            return
        self._marks.append((now, done))
        lately_s = max(LATELY_S, SHARE * (now - self._began))
        while len(self._marks) > 2 and self._marks[1][0] <= now - lately_s:
            self._marks.popleft()

    def left_s(self, now: float, total: int) -> float | None:
        """Seconds until `total` are done; None before the first step of this run."""
        (since, before), (latest, done) = self._marks[0], self._marks[-1]
        if done == before:
            return None
        under_way_s = min(now - latest, latest - self._marks[-2][0])
        return (latest - since) / (done - before) * (total - done) - under_way_s
