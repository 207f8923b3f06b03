"""Work that is dropped in the middle when it is asked to stop: a step of a fit, an evaluation.

In: a `ShouldStop`. Out: whether pieces of the work were left out, so that its result is meaningless. Pieces (heads,
tiles of logits, blocks of rows) ask `leave_out` before they begin, deep inside code that knows nothing about fits. The
caller who began the work looks at `left_out` after it. Pieces are left out instead of raising, so that the processes
of a distributed fit stay in step: all of them reach the end of the work and drop it together.
"""

import contextlib
from collections.abc import Iterator

from alens.job.progress import ShouldStop


class InterruptedWorkError(Exception):
    """The work was dropped and nothing has changed. Becomes a `StoppedError` once everything else is saved."""


class Droppable:
    """A piece of work whose parts may be left out."""

    def __init__(self, should_stop: ShouldStop) -> None:
        self._should_stop = should_stop
        self.left_out = False
        """Whether a part was left out, so that the result must be dropped."""

    def leave_out(self) -> bool:
        """Whether to leave out the next part. After the first one, all are left out. May be asked in any thread."""
        self.left_out = self.left_out or self._should_stop()
        return self.left_out


_work: Droppable | None = None
"""The current work of this process. A global, because its parts run in other threads and some are called by torch."""


@contextlib.contextmanager
def droppable(should_stop: ShouldStop) -> Iterator[Droppable]:
    """Inside this context, parts of the work are left out once `should_stop` is true; outside, never."""
    global _work
    before, _work = _work, Droppable(should_stop)
    try:
        yield _work
    finally:
        _work = before


def leave_out() -> bool:
    """Whether to leave out the next part of the current work."""
    return _work is not None and _work.leave_out()
