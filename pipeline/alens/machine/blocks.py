"""How many logits are in memory at once: block sizes for all work over the vocabulary.

In: a number of rows or tokens, and a device. Out: consecutive slices of them. A pass over logits is fastest on blocks
that stay in the CPU's caches. The product that makes logits from W_U wants many rows, because it reads all of W_U
for each block. CUDA wants large blocks for both.
"""

from collections.abc import Iterator

import torch

CPU_ROWS = 64
"""Measured as the fastest of 16 to 1,024 for V = 4,096 and V = 50,257 (docs/decisions/0010)."""

CUDA_ROWS = 2048
"""412 MB of float32 logits at V = 50,257. Not measured."""

LOGIT_BYTES = 256 * 2**20
"""Bytes of the float32 logits that a CPU makes in one product: 1,335 rows at V = 50,257 (docs/decisions/0012)."""

REUSED_BYTES = 28 * 2**20
"""Bytes of the logits of one layer when prompts are read: the C library keeps what is smaller than 32 MB for the next
tensor, and asks the system, page by page, for each one that is larger (docs/decisions/0064)."""

CPU_TILE_ROWS, CPU_TILE_COLUMNS = 512, 1024
"""Rows x tokens of one tile of a head's logits: 2 MB. Measured (docs/decisions/0015)."""

CUDA_TILE_COLUMNS = 8192
"""Tokens of a tile of `CUDA_ROWS` rows: 64 MB. Not measured."""

CPU_TEACHER_ROWS = 256
"""Rows whose exact distributions are in memory at once, shared by all heads of a fit: 51 MB at V = 50,257."""


def slices(total: int, size: int) -> list[slice]:
    """Consecutive slices of `size` that cover `range(total)`; the last one may be shorter."""
    return [slice(start, min(total, start + size)) for start in range(0, total, size)]


def tile_size(device: torch.device) -> tuple[int, int]:
    """The most rows and the most tokens of a tile of logits, which is made, used and dropped."""
    return (CPU_TILE_ROWS, CPU_TILE_COLUMNS) if device.type == "cpu" else (CUDA_ROWS, CUDA_TILE_COLUMNS)


def teacher_rows(device: torch.device) -> int:
    """The most rows whose exact teacher distributions are in memory at once."""
    return CPU_TEACHER_ROWS if device.type == "cpu" else CUDA_ROWS


def kept_rows(vocabulary: int, device: torch.device) -> int:
    """The most rows whose exact teacher distributions several layers share: whole blocks that `LOGIT_BYTES` hold."""
    block = teacher_rows(device)
    return max(1, LOGIT_BYTES // (4 * vocabulary * block)) * block


def logit_blocks(num_rows: int, vocabulary: int, device: torch.device) -> Iterator[slice]:
    """Consecutive slices that cover `range(num_rows)`, of nearly equal size, for products with W_U."""
    most = max(1, LOGIT_BYTES // (4 * vocabulary)) if device.type == "cpu" else CUDA_ROWS
    count = -(-num_rows // most)
    for number in range(count):
        yield slice(number * num_rows // count, (number + 1) * num_rows // count)


def tiled_blocks(num_rows: int, device: torch.device) -> Iterator[slice]:
    """Consecutive slices that cover `range(num_rows)`, for readings that are judged a tile of logits at a time."""
    yield from slices(num_rows, min(teacher_rows(device), tile_size(device)[0]))


def row_blocks(num_rows: int, device: torch.device) -> Iterator[slice]:
    """Consecutive slices that cover `range(num_rows)`."""
    yield from slices(num_rows, CPU_ROWS if device.type == "cpu" else CUDA_ROWS)
