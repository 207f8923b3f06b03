"""What the chunks of a compressed shard file say they hold, looked up before any is decompressed.

In: a file and its `ArraySpec`. Out: what is wrong, in a few words, or None. A chunk is what Blosc wrote and a crc32c; the
index of a shard's chunks, place and length of each and a crc32c, ends the file. Blosc takes as much memory as the first
bytes of a chunk claim.
"""

import os
import struct
from pathlib import Path

from alens.store.arrays import CHECKSUM_BYTES, INDEX_BYTES, ArraySpec

ABSENT = 2**64 - 1
"""In an index: the place of a chunk that was not written."""

BLOSC_HEADER = struct.Struct("<4xIII")
"""Bytes when decompressed, bytes a block, bytes as they lie."""


def wrong(path: Path, spec: ArraySpec) -> str | None:
    """Raises `OSError`."""
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
