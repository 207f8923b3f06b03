"""Zarr's own LocalStore, with the promise of `durable`: zarr renames, but does not sync.

In: what zarr writes into a store. Out: files that survive a power cut, read back, and remembered. A module of its
own, because importing zarr takes 0.2 s, and most of what writes files durably needs no zarr.
"""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from alens.store import durable


class DurableStore(LocalStore):
    """A LocalStore whose writes are durable, and checked; `written` maps each key to (bytes, SHA-256)."""

    def __init__(self, root: Path | str, **options: Any) -> None:
        super().__init__(root, **options)
        self.written: dict[str, tuple[int, str]] = {}

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Metadata only. Zarr reads an old shard before it writes the new one, and a torn one would make every
        retry fail: here there is none, and the new one replaces it at once."""
        return await super().get(key, prototype, byte_range) if key.endswith("zarr.json") else None

    async def _set(self, key: str, value: Buffer, exclusive: bool = False) -> None:
        self._check_writable()
        view = memoryview(value.as_buffer_like()).cast("B")
        await asyncio.to_thread(durable.put, self.root / key, view, make_folder=False)
        await asyncio.to_thread(durable.check_on_disk, self.root / key, view)
        self.written[key] = (view.nbytes, hashlib.sha256(view).hexdigest())
