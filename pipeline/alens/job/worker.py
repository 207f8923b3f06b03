"""One of N independent jobs that share work; job scripts name it with `--worker I/N`."""

import re
from dataclasses import dataclass

from alens.errors import RequestError


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One of N jobs that share a cache or a sweep; each does its own part.

    Raises `RequestError` for an index outside of 0 to N - 1.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise RequestError(
                f"worker {self.index}/{self.count} does not exist: workers of {self.count} are 0/{self.count} to {self.count - 1}/{self.count}"
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_worker(text: str) -> Worker:
    """The worker that `I/N` names. Raises `RequestError` for text of another form."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None:
        raise RequestError(f"worker {text!r} is not of the form I/N, for example 0/8")
    return Worker(index=int(match[1]), count=int(match[2]))
