"""Where code waits for the pretended GPU: each wait is counted by its place in alens, or refused.

A wait is whatever keeps the host until the GPU has done its work: a look at a value, a copy that is not asynchronous, an
operation whose result has a length that only the GPU knows.
"""

import sys
import threading
from collections import Counter
from pathlib import Path

import alens

PACKAGE = Path(alens.__file__).parent
ELSEWHERE = "elsewhere"


def place() -> str:
    """The function of alens that is running: `room/module.py:function`."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            return f"{path.relative_to(PACKAGE)}:{frame.f_code.co_name}"
        frame = frame.f_back
    return ELSEWHERE


class Waits:
    """Counts waits of all threads; refuses those of the device as PyTorch's sync debug mode does."""

    def __init__(self) -> None:
        self.mode = "default"
        self.counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def note(self, what: str, *, refusable: bool = True) -> None:
        """A wait begins. Raises `RuntimeError` for one that PyTorch notices, where the mode is `error`.

        To wait for an event or for the whole device is what code does that means to wait: that is counted, never refused.
        """
        if refusable and self.mode == "error":
            raise RuntimeError(f"called a synchronizing CUDA operation: {what} [pretended, in {place()}]")
        with self._lock:
            self.counts[place(), what] += 1

    def set_mode(self, mode: int | str) -> None:
        """As `torch.cuda.set_sync_debug_mode`."""
        names = ("default", "warn", "error")
        self.mode = names[mode] if isinstance(mode, int) else mode
        if self.mode not in names:
            raise RuntimeError(f"invalid value of sync debug mode: {mode}")


WAITS = Waits()
