"""How many rows have their logits in memory at once: the bounds of everything that touches a vocabulary.

In: a number of rows and a device. Out: consecutive slices of them. Passes over logits want a block that stays
in the caches of a CPU; the product that makes logits from W_U wants many rows, because it reads all of W_U
for each block; CUDA wants large blocks for both.
"""

from collections.abc import Iterator

import torch

CPU_ROWS = 64
"""Measured as the fastest of 16 to 1,024 for V = 4,096 and V = 50,257 (docs/decisions/0010)."""

CUDA_ROWS = 2048
"""412 MB of float32 logits at V = 50,257. Not measured."""

LOGIT_BYTES = 256 * 2**20
"""Of float32 logits that a CPU makes in one product: 1,335 rows at V = 50,257 (docs/decisions/0012)."""


def logit_blocks(num_rows: int, vocabulary: int, device: torch.device) -> Iterator[slice]:
    """Consecutive slices that cover `range(num_rows)`, of nearly equal size, for products with W_U."""
    most = max(1, LOGIT_BYTES // (4 * vocabulary)) if device.type == "cpu" else CUDA_ROWS
    count = -(-num_rows // most)
    for number in range(count):
        yield slice(number * num_rows // count, (number + 1) * num_rows // count)


def row_blocks(num_rows: int, device: torch.device) -> Iterator[slice]:
    """Consecutive slices that cover `range(num_rows)`."""
    size = CPU_ROWS if device.type == "cpu" else CUDA_ROWS
    for start in range(0, num_rows, size):
        yield slice(start, min(num_rows, start + size))
