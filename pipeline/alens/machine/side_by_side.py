"""Independent pieces of work on the threads of a CPU, one thread a piece.

In: a function of a number, and how many numbers. Out: its results, in order. torch splits each small product over all
threads and waits for the slowest; when something else runs on one of the cores, every wait costs a time slice of the
system (ten times slower was measured, docs/decisions/0015). Independent pieces do not wait for each other, and their
results do not depend on the number of threads.
"""

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def side_by_side(work: Callable[[int], T], count: int) -> list[T]:
    """`[work(0), ..., work(count - 1)]`, without gradients; `work` must not depend on the order."""
    threads = min(torch.get_num_threads(), count)
    if threads < 2:
        with torch.no_grad():
            return [work(number) for number in range(count)]

    def piece(number: int) -> T:
        with torch.no_grad():  # gradient mode is each thread's own
            return work(number)

    return list(_pool(os.getpid(), torch.get_num_threads()).map(piece, range(count)))


def each(work: Callable[[int], None], count: int, device: torch.device) -> None:
    """Run `work(0)` to `work(count - 1)` without gradients: side by side on a CPU, one after the other on other devices,
    which a single piece keeps busy."""
    if device.type == "cpu":
        side_by_side(work, count)
        return
    with torch.no_grad():
        for number in range(count):
            work(number)


@functools.cache
def _pool(_: int, threads: int) -> ThreadPoolExecutor:
    """A pool in whose threads torch uses one thread each. Keyed by process id: a forked process makes its own."""
    ready = threading.Barrier(threads + 1)

    def first() -> None:
        torch.get_num_threads()  # a new thread takes the default at torch's first look: have that happen now
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="alens-head", initializer=first)
    for _ in range(threads):
        pool.submit(int)
    ready.wait()
    torch.set_num_threads(threads)  # setting it above also changed the default of later threads: restore that
    return pool
