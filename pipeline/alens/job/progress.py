"""How work reports its progress: one record, passed to one callable.

The library never prints; `alens.cli.watch` draws the records on a terminal or writes them to a log. Work that may take
more than a few seconds reports when it begins, with nothing done, and then after each step. The watcher decides which
reports are worth a line.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The beginning of a stage, or a step of it that is done."""

    stage: str
    """What is being done, in a few words: `tokenise`, `fit`, `loading the model`."""
    done: int = 0
    """Units finished, including those of earlier runs."""
    total: int | None = None
    """Units in all; None while it is not known."""
    unit: str = ""
    """What is counted: `rows`, `steps`. Empty for a stage without steps."""
    note: str = ""
    """Current figures, for people to read."""


Report = Callable[[Progress], None]
"""A callable that the working thread calls after each step."""

ShouldStop = Callable[[], bool]
"""True once a signal or a time limit asks the work to save and stop, and true from then on. Called often, from any
thread."""


def silent(_: Progress) -> None:
    """The `Report` of callers that do not watch."""


def counted(items: Sequence[T], report: Report, stage: str, unit: str) -> Iterator[T]:
    """Yield the items one by one, reporting before each and after the last how many are done."""
    for done, item in enumerate(items):
        report(Progress(stage=stage, done=done, total=len(items), unit=unit))
        yield item
    report(Progress(stage=stage, done=len(items), total=len(items), unit=unit))


def counting(report: Report, stage: str, unit: str, total: int | None) -> Callable[[int], None]:
    """Report the beginning of a stage; call the returned function with the number of further units done."""
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
