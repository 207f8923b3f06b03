"""Tries a request again while the network or the server fails, for a while.

In: a request as a function. Out: what it returns, or a `RunError` of one line: what failed, where, after how many tries.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from alens.errors import RunError
from alens.remote.failure import Failure, failure_of

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long requests are tried."""

    tries: int = 6
    connect_s: float = 5.0
    """Seconds until a connection stands."""
    silence_s: float = 15.0
    """Seconds without a byte after which a request has failed."""
    request_s: float = 120.0
    """Seconds that one request may take in all."""
    total_s: float = 180.0
    """No request is tried again so many seconds after it was first made."""
    first_wait_s: float = 0.25
    """The wait before the second try; it doubles with each further one."""
    longest_wait_s: float = 8.0

    def wait_s(self, tries: int) -> float:
        """Seconds to wait after so many tries: spread, so that many readers do not come back at once."""
        return min(self.longest_wait_s, self.first_wait_s * 2.0 ** (tries - 1)) * random.uniform(0.5, 1.0)


PATIENCE = Patience()


def patiently(request: Callable[[], Answer], what: str, where: str, patience: Patience) -> Answer:
    """The answer to `request`, which is made again while it fails in a way that may pass.

    `what` and `where` begin the message: "cannot read", "s3://bucket/plan.json". Raises `FileNotFoundError` where there is
    no such object, `RequestError` where it is refused, `RunError` where it fails to the end.
    """
    begun, tries = time.monotonic(), 0
    while True:
        tries += 1
        try:
            return request()
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                raise
            failure.raise_final(what, where)
            took = time.monotonic() - begun
            wait_s = patience.wait_s(tries)
            if tries >= patience.tries or took + wait_s > patience.total_s:
                raise RunError(_line(failure, what, where, tries, took)) from error
            time.sleep(wait_s)


def _line(failure: Failure, what: str, where: str, tries: int, took: float) -> str:
    return (
        f"{what} {where}: {failure.why}, {tries} tries in {took:.0f} s; {failure.hint}, then run again: what was fetched or "
        "sent whole is kept"
    )
