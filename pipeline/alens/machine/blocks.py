"""How many logits are in memory at once: the bounds of everything that touches a vocabulary.

In: a number of rows or tokens, and a device. Out: consecutive slices of them. Passes over logits want a block that stays
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

CPU_TILE_ROWS, CPU_TILE_COLUMNS = 512, 1024
"""Rows x tokens of the logits of one head in the making: 2 MB. Measured (docs/decisions/0015)."""

CUDA_TILE_COLUMNS = 8192
"""By `CUDA_ROWS`: 64 MB. Not measured."""

CPU_TEACHER_ROWS = 256
"""Rows whose exact distributions all heads of a fit share: 51 MB at V = 50,257."""


def slices(total: int, size: int) -> list[slice]:
    """Consecutive slices that cover `range(total)`, all of `size` but the last."""
    return [slice(start, min(total, start + size)) for start in range(0, total, size)]


def tile_size(device: torch.device) -> tuple[int, int]:
    """Most rows and most tokens of a tile of logits that is made, used and forgotten."""
    return (CPU_TILE_ROWS, CPU_TILE_COLUMNS) if device.type == "cpu" else (CUDA_ROWS, CUDA_TILE_COLUMNS)


def teacher_rows(device: torch.device) -> int:
    """Most rows that have all probabilities of an exact teacher in memory."""
    return CPU_TEACHER_ROWS if device.type == "cpu" else CUDA_ROWS


def logit_blocks(num_rows: int, vocabulary: int, device: torch.device) -> Iterator[slice]:
    """Consecutive slices that cover `range(num_rows)`, of nearly equal size, for products with W_U."""
    most = max(1, LOGIT_BYTES // (4 * vocabulary)) if device.type == "cpu" else CUDA_ROWS
    count = -(-num_rows // most)
    for number in range(count):
        yield slice(number * num_rows // count, (number + 1) * num_rows // count)


def row_blocks(num_rows: int, device: torch.device) -> Iterator[slice]:
    """Consecutive slices that cover `range(num_rows)`."""
    yield from slices(num_rows, CPU_ROWS if device.type == "cpu" else CUDA_ROWS)
