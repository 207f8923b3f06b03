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
        self._pieces: dict[int, tuple[int, object]] = {}
        self._lock = threading.RLock()  # memory may be given back at any moment, also within

    def empty(self, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        """A contiguous tensor there."""
        num_bytes = max(shape.numel() * dtype.itemsize, 1)
        pages = mmap.mmap(-1, num_bytes)
        whole = torch.frombuffer(pages, dtype=torch.uint8)
        piece = num_bytes, object()
        with self._lock:
            self._pieces[whole.data_ptr()] = piece
        weakref.finalize(pages, self._forget, whole.data_ptr(), piece)
        made: torch.Tensor = whole[: shape.numel() * dtype.itemsize].view(dtype).view(shape)
        return made

    def _forget(self, address: int, piece: tuple[int, object]) -> None:
        """Pages are given back before this is called: a thread may have a new piece at their address by now."""
        with self._lock:
            if self._pieces.get(address) is piece:
                del self._pieces[address]

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor on the CPU begins there."""
        address = tensor.data_ptr()
        with self._lock:
            return any(start <= address < start + size for start, (size, _) in [*self._pieces.items()])


@dataclass(frozen=True, eq=False)
class Copy:
    """A copy under way: the memory of the CPU at one end of it, what it brings there or took from there, its GPU."""

    number: int
    device: torch.device
    memory: torch.Tensor
    values: torch.Tensor
    is_upload: bool


class Transfers:
    """Asynchronous copies between GPUs and pinned memory, in the order in which they were begun."""

    def __init__(self) -> None:
        self._under_way: list[Copy] = []
        self._lock = threading.RLock()
        self.begun = 0

    def download(self, device: torch.device, target: torch.Tensor, values: torch.Tensor) -> None:
        """`values` are copied to `target` later; it holds wrong numbers meanwhile."""
        self._pass_on(device, target)
        self._begin(device, target, values.to(target.dtype, copy=True).expand(target.shape), is_upload=False)
        target.fill_(wrong(target.dtype))

    def upload(self, device: torch.device, source: torch.Tensor) -> None:
        """`source` is read later; nobody may write to it meanwhile."""
        self._begin(device, source, source.clone(), is_upload=True)

    def _pass_on(self, device: torch.device, target: torch.Tensor) -> None:
        """The GPU, which goes on in its order, has read memory by the time at which it writes there."""
        with self._lock:
            self._under_way = [
                copy
                for copy in self._under_way
                if not (copy.is_upload and copy.device == device and overlap(copy.memory, target))
            ]

    def _begin(self, device: torch.device, memory: torch.Tensor, values: torch.Tensor, **how: bool) -> None:
        with self._lock:
            self.begun += 1
            self._under_way.append(Copy(self.begun, device, memory, values, **how))

    def arrive(self, device: torch.device | None = None, last: int | None = None) -> None:
        """The copies of a GPU, or of all, arrive, up to number `last`, or all.

        Raises `RuntimeError` where memory was written to from which a copy was under way.
        """
        with (
            self._lock,
            torch.inference_mode(),
        ):  # which may write to tensors that were made in it, and to others
            arrived = [
                copy
                for copy in self._under_way
                if device in (None, copy.device) and (last is None or copy.number <= last)
            ]
            self._under_way = [copy for copy in self._under_way if copy not in arrived]
            for copy in arrived:
                if not copy.is_upload:
                    copy.memory.copy_(copy.values)
                elif not copy.memory.equal(copy.values) and not copy.values.isnan().any():
                    raise RuntimeError(
                        "pinned memory was written to before it was copied to the GPU [pretended]"
                    )


def overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two contiguous tensors share memory."""
    (a, b), (c, d) = ((t.data_ptr(), t.data_ptr() + t.nbytes) for t in (one, other))
    return a < d and c < b


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
