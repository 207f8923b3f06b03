"""How many rows have their logits in memory at once: the one bound of everything that touches a vocabulary.

In: a number of rows and a device. Out: consecutive slices of them. On the CPU a block should stay in the
caches; on CUDA it should be large enough to keep the device busy.
"""

from collections.abc import Iterator

import torch

CPU_ROWS = 64
"""Measured as the fastest of 16 to 1,024 for V = 4,096 and V = 50,257 (docs/decisions/0010)."""

CUDA_ROWS = 2048
"""412 MB of float32 logits at V = 50,257. Not measured."""


def row_blocks(num_rows: int, device: torch.device) -> Iterator[slice]:
    """Consecutive slices that cover `range(num_rows)`."""
    size = CPU_ROWS if device.type == "cpu" else CUDA_ROWS
    for start in range(0, num_rows, size):
        yield slice(start, min(num_rows, start + size))
