"""Work that is dropped where it stands when somebody asks to stop: a step of a fit, an evaluation.

In: a `ShouldStop`. Out: whether pieces of the work were left out, so that its result means nothing. Pieces (heads,
tiles of logits, blocks of rows) ask `leave_out` before they begin, deep inside code that knows nothing of fits;
whoever began the work asks `left_out` after it. Leaving out, instead of raising, keeps what the processes of a fit do
together in step: all of them come to the end of the work, and drop it together.
"""

import contextlib
from collections.abc import Iterator

from alens.job.progress import ShouldStop


class InterruptedWorkError(Exception):
    """The work was dropped, and nothing has changed. Becomes a `StoppedError` once everything else is saved."""


class Droppable:
    """Work whose pieces may be left out."""

    def __init__(self, should_stop: ShouldStop) -> None:
        self._should_stop = should_stop
        self.left_out = False
        """Whether a piece was left out: the result is to be dropped."""

    def leave_out(self) -> bool:
        """Whether the next piece is to be left out. Once one was, all are. Asked in any thread."""
        self.left_out = self.left_out or self._should_stop()
        return self.left_out


_work: Droppable | None = None
"""The work of this process: its pieces run in threads of their own, and `torch` calls some of them."""


@contextlib.contextmanager
def droppable(should_stop: ShouldStop) -> Iterator[Droppable]:
    """Inside, pieces are left out once `should_stop` says so; outside, never."""
    global _work
    before, _work = _work, Droppable(should_stop)
    try:
        yield _work
    finally:
        _work = before


def leave_out() -> bool:
    """Whether the piece of work that comes next is to be left out."""
    return _work is not None and _work.leave_out()
