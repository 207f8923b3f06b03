"""Pinned memory of the pretended GPU, and asynchronous copies, which arrive only when somebody waits for them.

Until then their place holds numbers that show: NaN, or the largest integer. So a value that is read too early is wrong
here too, each time, and not once in a hundred runs.
"""

import mmap
import threading
import weakref
from dataclasses import dataclass

import torch

from .waits import WAITS


class PinnedMemory:
    """Which memory is pinned. Each piece has pages of its own, so that an address tells."""

    def __init__(self) -> None:
        self._pieces: dict[int, int] = {}
        self._lock = threading.Lock()

    def empty(self, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        """A contiguous tensor there."""
        num_bytes = max(shape.numel() * dtype.itemsize, 1)
        pages = mmap.mmap(-1, num_bytes)
        whole = torch.frombuffer(pages, dtype=torch.uint8)
        with self._lock:
            self._pieces[whole.data_ptr()] = num_bytes
        weakref.finalize(pages, self._pieces.pop, whole.data_ptr(), None)
        made: torch.Tensor = whole[: shape.numel() * dtype.itemsize].view(dtype).view(shape)
        return made

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor on the CPU begins there."""
        address = tensor.data_ptr()
        with self._lock:
            return any(start <= address < start + size for start, size in self._pieces.items())


@dataclass(frozen=True)
class Copy:
    """A copy to the CPU under way: where to, and what."""

    number: int
    target: torch.Tensor
    values: torch.Tensor


class Transfers:
    """Asynchronous copies from the GPU to pinned memory, in the order in which they were begun."""

    def __init__(self) -> None:
        self._under_way: list[Copy] = []
        self._lock = threading.RLock()
        self.begun = 0

    def begin(self, target: torch.Tensor, values: torch.Tensor) -> None:
        """`values` are copied to `target` later; it holds wrong numbers meanwhile."""
        with self._lock:
            self.begun += 1
            self._under_way.append(
                Copy(self.begun, target, values.to(target.dtype, copy=True).expand(target.shape))
            )
            target.fill_(wrong(target.dtype))

    def arrive(self, last: int | None = None) -> None:
        """The copies up to number `last` arrive; without it all."""
        with (
            self._lock,
            torch.inference_mode(),
        ):  # which may write to tensors that were made in it, and to others
            last = self.begun if last is None else last
            for copy in self._under_way:
                if copy.number <= last:
                    copy.target.copy_(copy.values)
            self._under_way = [copy for copy in self._under_way if copy.number > last]


def wrong(dtype: torch.dtype) -> float | int | bool:
    """A value that shows where it is taken for a result."""
    if dtype.is_floating_point:
        return float("nan")
    return True if dtype == torch.bool else torch.iinfo(dtype).max


PINNED = PinnedMemory()
TRANSFERS = Transfers()


def wait(what: str, *, refusable: bool = True) -> None:
    """The host waits until the GPU has done all its work."""
    WAITS.note(what, refusable=refusable)
    TRANSFERS.arrive()
