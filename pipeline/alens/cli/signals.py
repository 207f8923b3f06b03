"""A line at the moment a signal comes, whatever the program is in the midst of.

In: numbers of signals. Out: a line of the log for the first that comes. Python runs handlers of signals between two
of its own instructions, in the main thread: a long product or write holds them up. The system writes the number of a
signal into a pipe at once, and a thread waits at its other end.
"""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence

log = logging.getLogger("alens")

OVER = 0
"""No signal has this number: it ends the thread."""


@contextlib.contextmanager
def announced(numbers: Sequence[signal.Signals]) -> Iterator[threading.Event]:
    """Inside, the first of these signals is told of at once, and then the event is set.

    The signals must have handlers. Main thread only.
    """
    told = threading.Event()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    thread = threading.Thread(
        target=_tell, args=(reading, set(numbers), told), name="alens-signals", daemon=True
    )
    thread.start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield told
    finally:
        signal.set_wakeup_fd(before)
        os.write(writing, bytes([OVER]))
        thread.join()
        os.close(writing)
        os.close(reading)


def _tell(reading: int, numbers: set[signal.Signals], told: threading.Event) -> None:
    while (number := os.read(reading, 1)[0]) != OVER:
        if number in numbers and not told.is_set():
            log.info("stopping: %s came, what is done is saved first", signal.Signals(number).name)
            told.set()
