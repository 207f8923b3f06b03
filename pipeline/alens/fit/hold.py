"""The directory of a fit, which all of its processes hold together: rank 0 claims it for all.

In: the directory and the processes. Out: a `Hold`, which the training loop checks before it writes.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from alens.fit.distributed import Processes
from alens.job.progress import ShouldStop
from alens.store import one_writer
from alens.store.claim import Claim


class Hold:
    """A directory that these processes hold."""

    def __init__(self, lenses: Path, processes: Processes, claim: Claim | None) -> None:
        self._lenses, self._processes, self._claim = lenses, processes, claim

    @property
    def is_lost(self) -> bool:
        """Whether another process has taken the directory over, as far as this rank knows; not collective."""
        return self._claim is not None and self._claim.is_lost

    def check(self) -> None:
        """Call this before writing what the next holder would read.

        Raises `RunError` on every rank when another process holds the directory now. Collective.
        """
        self._processes.first_does(self._check)

    def _check(self) -> None:
        assert self._claim is not None, "rank 0 holds it"
        one_writer.check(self._claim, self._lenses)


@contextlib.contextmanager
def held(lenses: Path, processes: Processes, should_stop: ShouldStop) -> Iterator[Hold]:
    """Hold `lenses` for these processes alone. Collective.

    Raises `RequestError` when other processes work there, `StoppedError` when asked to stop before that is known.
    """
    with contextlib.ExitStack() as stack:
        claims: list[Claim] = []

        def claim() -> None:
            claims.append(stack.enter_context(one_writer.claimed(lenses, should_stop)))

        processes.first_does(claim)
        yield Hold(lenses, processes, claims[0] if claims else None)
