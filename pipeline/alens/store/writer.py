"""Writes a cache: first its skeleton, then shard by shard. Each shard is on disk before its record says so.

In: a `Plan`, the model's few weights, and for each shard one numpy array for every array of the plan.
Out: `arrays.zarr/`, `commits/`, `plan.json` and, once all shards are written, `MANIFEST.json`.

Order for a shard: its files are written beside, synced, renamed over what was there, read back and
compared, and the record is put last. Whenever the process is killed, the shard is either committed or absent.
"""

import asyncio
import hashlib
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.abc.store import ByteRequest
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore

from alens.errors import RequestError, RunError
from alens.store import document, durable
from alens.store.arrays import ArraySpec, groups, shard_arrays, weight_arrays
from alens.store.commits import fingerprint
from alens.store.links import link_before
from alens.store.paths import ARRAYS, COMMITS, StorePaths
from alens.store.schema import Plan

FILES_AT_ONCE = 4
"""While one file waits for the disk, the next is encoded and hashed (docs/decisions/0012)."""

SPARE_BYTES = 16 * 2**20
"""Bytes kept free beside a shard: for records, logs and other programs."""


def put_skeleton(root: Path, plan: Plan, weights: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Write everything except shards: array metadata, the model's weights, and last `plan.json`.

    `weights` holds model/W_O (L, H, E, D), model/W_U (D, V) and model/b_U (V). Two jobs that do this at
    the same time write the same bytes. Raises `RequestError` where a folder of the cache is a link.
    """
    check_no_links(root, plan)
    paths = StorePaths(root)
    memory = MemoryStore()
    group = zarr.create_group(memory, attributes={"alens_format": 1, "plan": plan.identity})
    for name in sorted(groups([*shard_arrays(plan), *weight_arrays(plan)])):
        group.require_group(name)
    for spec in shard_arrays(plan).values():
        create_array(memory, spec)
    for name, spec in weight_arrays(plan).items():
        create_array(memory, spec)[...] = np.ascontiguousarray(weights[name], dtype=np.float32)
    with durable.write_errors(root):
        paths.commits.mkdir(parents=True, exist_ok=True)
        files = {}
        for key, blob in sorted(_contents(memory)):
            durable.put(paths.arrays / key, blob)
            files[key] = {"bytes": len(blob), "sha256": hashlib.sha256(blob).hexdigest()}
        _put_json(paths.skeleton, {"plan": plan.identity, "files": files})
        durable.put(paths.plan, plan.to_json())


def check_no_links(root: Path, plan: Plan | None = None) -> None:
    """Raises `RequestError` where a folder that a cache writes to is a link: another cache may lie behind it."""
    names = () if plan is None else (*shard_arrays(plan), *weight_arrays(plan))
    for path in (f"{COMMITS}/", f"{ARRAYS}/", *(f"{ARRAYS}/{name}/" for name in names)):
        if (link := link_before(root, path)) is not None:
            raise RequestError(
                f"{root / link} is a link to {(root / link).readlink()}, and a cache is not written through one: what is "
                "there may be another cache's; put a directory in its place, or link the whole store"
            )


def create_array(store: MemoryStore, spec: ArraySpec) -> "zarr.Array[Any]":
    """An empty array in memory, made from its specification. A cache holds its metadata."""
    return zarr.create_array(
        store=store,
        name=spec.name,
        shape=spec.shape,
        dtype=spec.dtype,
        chunks=(spec.chunk_rows, *spec.shape[1:]),
        shards=spec.shard_shape(),
        filters=None,
        compressors=_codecs(spec),
        fill_value=spec.fill,
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=spec.dimensions,
        attributes={"meaning": spec.meaning},
    )


def _codecs(spec: ArraySpec) -> list[BytesBytesCodec]:
    """A checksum goes last: zarr's other codecs read flipped bits back silently."""
    if not spec.compressed:
        return [Crc32cCodec()]
    size = np.dtype(spec.dtype).itemsize
    return [BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=size), Crc32cCodec()]


def _contents(store: MemoryStore) -> list[tuple[str, bytes]]:
    async def read() -> list[tuple[str, bytes]]:
        contents = []
        async for key in store.list():
            value = await store.get(key, default_buffer_prototype())
            assert value is not None
            contents.append((key, value.to_bytes()))
        return contents

    return sync(read())


class _DurableStore(LocalStore):
    """Zarr's own store, which renames but does not sync, with the promise of `durable`: what it writes survives a power
    cut and is read back. `written` maps each key to (bytes, SHA-256)."""

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


class ShardWriter:
    """Writes and commits shards of one plan. Any number of writers may run at once, on different shards."""

    def __init__(self, root: Path, plan: Plan) -> None:
        check_no_links(root, plan)
        self.paths = StorePaths(root)
        self.plan = plan
        self.specs = shard_arrays(plan)
        self.shard_bytes = sum(spec.row_bytes * spec.rows_per_shard for spec in self.specs.values())
        self._store = _DurableStore(self.paths.arrays)
        self._arrays: dict[str, Any] = {}

    def write(
        self, shard: int, arrays: Mapping[str, npt.NDArray[np.generic]], note: Mapping[str, Any]
    ) -> None:
        """Write one shard and commit it. `note` (host, versions, seconds) goes into the record.

        Raises `RunError` when the disk refuses or is too full, `DamageError` when what is read back is
        not what was written. In both cases the shard is not committed.
        """
        assert arrays.keys() == self.specs.keys(), sorted(arrays.keys() ^ self.specs.keys())
        with durable.write_errors(self.paths.root):
            self.check_space()
            if not self.paths.plan.is_file():
                raise RunError(
                    f"{self.paths.plan} is gone: the store was deleted, or its disk taken away; nothing more is written there"
                )
            # Nothing is removed first: another worker may be committing this very shard, with the same bytes.
            self._store.written.clear()
            with ThreadPoolExecutor(FILES_AT_ONCE, "alens-file") as pool:
                for done in [
                    pool.submit(self._write_array, name, shard, arrays[name]) for name in self.specs
                ]:
                    done.result()
            written = sorted(self._store.written.items())
            files = {key: {"bytes": num_bytes, "sha256": sha256} for key, (num_bytes, sha256) in written}
            record = {"plan": self.plan.identity, "shard": shard, "files": files, **note}
            _put_json(self.paths.record(shard), record)

    def _write_array(self, name: str, shard: int, values: npt.NDArray[np.generic]) -> None:
        spec = self.specs[name]
        assert values.shape == spec.shard_shape() and values.dtype == np.dtype(spec.dtype), name
        self._array(name)[shard * spec.rows_per_shard : (shard + 1) * spec.rows_per_shard] = values

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            array = zarr.open_array(self._store, path=name, mode="r+")
            self._arrays[name] = array.with_config({"write_empty_chunks": True})
        return self._arrays[name]

    def check_space(self, shards: int = 1) -> None:
        """Raises `RunError` when this many shards do not fit on the disk. Also called before the next shard is
        computed."""
        needed = shards * self.shard_bytes + SPARE_BYTES
        with durable.write_errors(self.paths.root):
            free = shutil.disk_usage(self.paths.root).free
        if free < needed:
            raise RunError(
                f"no space for the next shard in {self.paths.root}: {needed:,} bytes are needed, "
                f"{free:,} are free; committed shards are safe, make room and run again"
            )


def put_manifest(root: Path, plan: Plan, files_by_shard: Mapping[int, Mapping[str, Any]]) -> None:
    """Seal the cache: all shards of the plan are committed."""
    assert sorted(files_by_shard) == list(range(plan.num_shards))
    with durable.write_errors(root):
        _put_json(StorePaths(root).manifest, manifest_of(plan, files_by_shard))


def manifest_of(plan: Plan, files_by_shard: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """What `MANIFEST.json` says of these shards."""
    return {
        "format": 1,
        "plan": plan.identity,
        "shards": plan.num_shards,
        "rows": plan.rows,
        "fingerprint": fingerprint(files_by_shard),
    }


def _put_json(path: Path, body: Mapping[str, Any]) -> None:
    durable.put(path, document.encode(body), make_folder=False)
