"""How much a probe may take, and how long work takes when nothing else runs on the machine.

In: CPU seconds that may be used, or a piece of work. Out: `Budget`, `Took`. Other work on the machine makes the wall
clock run ahead of the work: it stands in the queue meanwhile. CPU time does not grow by that, so rates are taken from it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

T = TypeVar("T")

MOST_WALL = 4
"""A budget is used up too when the wall clock has run this many times as far: work may wait for a disk, or for a CPU."""

FREE = 0.85
"""A machine that gives at least this share of what was asked for counts as free: figures vary by as much."""


class Budget:
    """CPU seconds of this process that a probe may take, from now on; what is running at their end still ends."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._cpu_s, self._wall_s = time.process_time(), time.monotonic()

    @property
    def left(self) -> float:
        """Seconds that are left, at least 0."""
        by_cpu = self.seconds - (time.process_time() - self._cpu_s)
        by_wall = self.seconds - (time.monotonic() - self._wall_s) / MOST_WALL
        return max(0.0, min(by_cpu, by_wall))

    def part(self, share: float) -> "Budget":
        """A budget of this share of what is left."""
        return Budget(share * self.left)


@dataclass(frozen=True, kw_only=True)
class Took:
    """The time that a piece of work took, on three clocks."""

    wall_s: float
    cpu_s: float
    """CPU time of all threads of the process."""
    own_s: float
    """CPU time of the thread that called."""
    threads: int
    """Threads that the work may use; 0 for work on another device, which only the wall clock times."""

    @property
    def alone_s(self) -> float:
        """Seconds that it takes with a free CPU for each thread.

        Threads of torch share each operation evenly, so the calling thread works all the time. Where pieces of work are
        given to threads, the caller sleeps, and all CPU time is divided by the threads.
        """
        if not self.threads:
            return self.wall_s
        return min(self.wall_s, max(self.own_s, self.cpu_s / self.threads))

    def __add__(self, other: "Took") -> "Took":
        return Took(
            wall_s=self.wall_s + other.wall_s,
            cpu_s=self.cpu_s + other.cpu_s,
            own_s=self.own_s + other.own_s,
            threads=self.threads,
        )


class Clock:
    """Runs from when it is made."""

    def __init__(self, device: torch.device) -> None:
        synchronise(device)
        self._device = device
        self._wall_s, self._cpu_s, self._own_s = time.monotonic(), time.process_time(), time.thread_time()

    def took(self) -> Took:
        """The time since then."""
        synchronise(self._device)
        return Took(
            wall_s=time.monotonic() - self._wall_s,
            cpu_s=time.process_time() - self._cpu_s,
            own_s=time.thread_time() - self._own_s,
            threads=torch.get_num_threads() if self._device.type == "cpu" else 0,
        )


def timed(work: Callable[[], T], device: torch.device) -> tuple[T, Took]:
    """What `work` gives, and the time it took."""
    clock = Clock(device)
    return work(), clock.took()


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all the work in its queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
