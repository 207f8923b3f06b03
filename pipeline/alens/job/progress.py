"""How long work tells its watcher where it is: one record, passed to one callable.

The library never prints; `alens.cli.watch` draws these on a terminal or writes them to a log. Work that may take more
than a few seconds reports when it begins, with nothing done, and then after each step: the watcher decides what is
worth a line.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A stage that begins, or one step of it done."""

    stage: str
    """What is being done, in a few words: `tokenise`, `fit`, `loading the model`."""
    done: int = 0
    """Units finished, those of earlier runs included."""
    total: int | None = None
    """Units in all; None while it is not known."""
    unit: str = ""
    """What is counted: `rows`, `steps`. Empty for a stage of one piece."""
    note: str = ""
    """Figures of this moment, for people."""


Report = Callable[[Progress], None]
"""Called from the working thread after each step."""

ShouldStop = Callable[[], bool]
"""True once a signal or a time limit asks the work to save and stop; then it stays true. Asked often, from any thread."""


def silent(_: Progress) -> None:
    """The report of callers that do not watch."""


def counted(items: Sequence[T], report: Report, stage: str, unit: str) -> Iterator[T]:
    """The items one by one; reports how many are done before each, and when all are."""
    for done, item in enumerate(items):
        report(Progress(stage=stage, done=done, total=len(items), unit=unit))
        yield item
    report(Progress(stage=stage, done=len(items), total=len(items), unit=unit))


def counting(report: Report, stage: str, unit: str, total: int | None) -> Callable[[int], None]:
    """A stage that begins; what is given is called with so many units more that are done."""
    done = 0

    def more(units: int) -> None:
        nonlocal done
        done += units
        report(Progress(stage=stage, done=done, total=total, unit=unit))

    more(0)
    return more


def never() -> bool:
    """The `ShouldStop` of callers that do not interrupt."""
    return False
