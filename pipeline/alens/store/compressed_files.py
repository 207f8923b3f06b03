"""Checks what the chunks of a compressed shard file claim to hold, before any of them is decompressed.

In: a file and its `ArraySpec`. Out: what is wrong, in a few words, or None. A chunk is what Blosc wrote, and a crc32c. The
file ends with the index of its chunks (place and length of each) and a crc32c. Blosc takes as much memory as the first
bytes of a chunk claim, so these are checked first.
"""

import os
import struct
from pathlib import Path

from alens.store.arrays import CHECKSUM_BYTES, INDEX_BYTES, ArraySpec

ABSENT = 2**64 - 1
"""The place in an index of a chunk that was not written."""

BLOSC_HEADER = struct.Struct("<4xIII")
"""Bytes when decompressed, bytes of a block, bytes on disk."""


def wrong(path: Path, spec: ArraySpec) -> str | None:
    """What is wrong with the chunks of a file; None where nothing is. Raises `OSError`."""
    chunks = spec.rows_per_shard // spec.chunk_rows
    expected = spec.chunk_rows * spec.row_bytes
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        index_bytes = chunks * INDEX_BYTES + CHECKSUM_BYTES
        if size < index_bytes:
            return f"{size:,} bytes, and the index of its chunks alone takes {index_bytes:,}"
        file.seek(size - index_bytes)
        index = file.read(chunks * INDEX_BYTES)
        for place, length in struct.iter_unpack("<QQ", index):
            if place == ABSENT:
                continue
            if length < BLOSC_HEADER.size or place + length > size:
                return "a chunk that does not lie in it"
            file.seek(place)
            claimed, _, _ = BLOSC_HEADER.unpack(file.read(BLOSC_HEADER.size))
            if claimed != expected:
                return f"a chunk that claims {claimed:,} bytes, of {expected:,}"
    return None
