"""How long work tells its watcher where it is: one record, passed to one callable.

The library never prints; `alens.cli.watch` draws these on a terminal or writes them to a log.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One step of work done."""

    stage: str
    """What is being done, in one or two words: `tokenise`, `cache`, `fit`."""
    done: int
    """Units finished, those of earlier runs included."""
    total: int | None
    """Units in all; None while it is not known."""
    unit: str
    """What is counted: `rows`, `steps`."""
    note: str = ""
    """Figures of this moment, for people."""


Report = Callable[[Progress], None]
"""Called from the working thread after each step."""

ShouldStop = Callable[[], bool]
"""True once a signal or a time limit asks the work to save and stop."""


def silent(_: Progress) -> None:
    """The report of callers that do not watch."""


def never() -> bool:
    """The `ShouldStop` of callers that do not interrupt."""
    return False
