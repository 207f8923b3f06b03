"""Values on the model's device -> rows of a shard's arrays in memory, without waiting for the device.

In: for each batch, tensors by array name and the places of their rows. Out: the arrays, filled. From CUDA, values are
copied to pinned memory and used one batch later, so that the device computes the next batch meanwhile (not measured: no
GPU was at hand). On the CPU they are used at once.
Shapes: N rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alens.errors import RunError
from alens.store.encoding import limit

Place = Callable[[str, npt.NDArray[Any], npt.NDArray[np.int64]], None]
"""Puts the values of one array, which are on the CPU, into their rows."""


@dataclass(frozen=True, kw_only=True)
class BatchArrays:
    """What is stored of one forward pass, on the model's device."""

    values: Mapping[str, torch.Tensor]
    """(N, ...) values by array name, in the dtype in which they are stored."""
    largest: Mapping[str, torch.Tensor]
    """The largest magnitude before the cast to float16, by what the values are."""
    finite: torch.Tensor | None = None
    """Whether the final residual is finite, where nobody has looked yet."""
    at_N: npt.NDArray[np.int64]
    """The places of the rows in the shard."""


class RowCollector:
    """Takes batches, and gives each to `place` when it is on the CPU."""

    def __init__(
        self,
        device: torch.device,
        keep_bits: int | None,
        place: Place,
        check_finite: Callable[[torch.Tensor], None] = lambda _: None,
    ) -> None:
        """`check_finite` gets the `finite` of each batch that has one, on the CPU."""
        self._device, self._limit, self._place = device, limit(keep_bits), place
        self._check_finite = check_finite
        self._waiting: tuple[BatchArrays, Any] | None = None
        self._pinned: list[dict[str, torch.Tensor]] = [{}, {}]

    def put(self, batch: BatchArrays) -> None:
        """Raises `RunError` when float16 cannot hold a value of this batch or the one before."""
        if self._device.type != "cuda":
            self._store(batch)
            return
        self._pinned.reverse()
        with torch.cuda.device(
            self._device
        ):  # memory is pinned for the current one, and it is whose event is recorded
            arriving = BatchArrays(
                values=self._start_copies(batch.values),
                largest=self._start_copies(batch.largest),
                finite=None if batch.finite is None else self._start_copy("finite", batch.finite),
                at_N=batch.at_N,
            )
            copied = torch.cuda.Event()
            copied.record()
        before, self._waiting = self._waiting, (arriving, copied)
        self._finish(before)

    def finish(self) -> None:
        """Wait for the last batch."""
        before, self._waiting = self._waiting, None
        self._finish(before)

    def _start_copies(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: self._start_copy(name, value) for name, value in values.items()}

    def _start_copy(self, name: str, value: torch.Tensor) -> torch.Tensor:
        pinned = self._pinned[0].get(name)
        if pinned is None or pinned.shape != value.shape:
            pinned = self._pinned[0][name] = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
        return pinned.copy_(value, non_blocking=True)

    def _finish(self, waiting: tuple[BatchArrays, Any] | None) -> None:
        if waiting is not None:
            waiting[1].synchronize()
            self._store(waiting[0])

    def _store(self, batch: BatchArrays) -> None:
        if batch.finite is not None:
            self._check_finite(batch.finite)
        for what, largest in batch.largest.items():
            if not float(largest) < self._limit:
                raise RunError(
                    f"{what} reaches {float(largest)}, which float16 cannot hold: check the model's weights and dtype"
                )
        for name, value in batch.values.items():
            self._place(name, value.numpy(), batch.at_N)
