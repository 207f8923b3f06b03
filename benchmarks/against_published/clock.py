"""The clock that all methods run against: the wall's, or this process' own CPU time.

In: `use("cpu")` or `use("wall")`. Out: `now()`, seconds. On a machine that others use at the same time, CPU time
with one thread compares what wall time cannot; it leaves out waiting for the disk.
"""

import time

KINDS = {"wall": time.perf_counter, "cpu": time.process_time}

_kind = "wall"


def use(kind: str) -> None:
    """Which clock counts from now on."""
    global _kind
    _kind = kind


def now() -> float:
    """Seconds since some moment."""
    return KINDS[_kind]()
