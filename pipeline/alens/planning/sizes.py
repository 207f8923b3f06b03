"""What a plan puts on disk: bytes of every array, files, directories. Pure arithmetic: nothing is read or written.

In: a `Plan` (its `tokens` may be an estimate) and, for arrays that are compressed, the measured bytes on disk
for a byte of values. Out: `Sizes`. The file of an array holds its rows, a crc32c for each chunk, and an index.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from alens.cache import token_sequences
from alens.store import document
from alens.store.arrays import ArraySpec, groups, shard_arrays, weight_arrays
from alens.store.paths import DOCUMENTS, TOKENS, StorePaths
from alens.store.schema import Plan

CRC_BYTES = 4
INDEX_BYTES = 16
"""Bytes for each chunk in the index at the end of a file: its offset and its length."""

ARRAY_JSON_BYTES = 1_300
"""Bytes of a zarr.json, approximately."""

NOTE_KEYS = (
    *("worker", "device", "threads", "rows", "seconds", "finished", "host", "python", "machine"),
    *("alens", "torch", "transformer-lens", "transformers", "zarr", "numpy"),
)
"""Keys of a commit record; only their total length matters here."""


@dataclass(frozen=True, kw_only=True)
class ArraySize:
    """One array on disk."""

    name: str
    axis: str
    """What the first axis counts: `row`, `shard`, or something else for the model's weights."""
    file_bytes: int
    """Bytes of one shard's file with checksums and index; weights have a single file."""
    num_files: int
    rows_per_file: int
    measured: bool
    """Whether the array is compressed, so that its size was measured on some rows instead of computed."""

    @property
    def bytes(self) -> int:
        return self.file_bytes * self.num_files

    @property
    def bytes_a_row(self) -> float:
        return self.file_bytes / self.rows_per_file


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of all files of a cache."""

    arrays: tuple[ArraySize, ...]
    num_shards: int
    tokens_bytes: int
    documents_bytes: int
    """The size of `documents.npy`; 0 where documents are not known."""
    record_bytes: int
    """Bytes of a commit record, approximately."""
    metadata_bytes: int
    """Bytes of every zarr.json, plan.json, commits/model.json and MANIFEST.json together, approximately."""
    files: int
    directories: int
    shard_memory_bytes: int
    """Bytes of the arrays of one shard, decoded, as a worker holds them in memory."""

    @property
    def inodes(self) -> int:
        return self.files + self.directories

    @property
    def files_a_shard(self) -> int:
        """Files of one shard: its arrays and its commit record."""
        return len(self._by_axis("row", "shard")) + 1

    @property
    def shard_bytes(self) -> int:
        """Bytes of one shard on disk, with its record."""
        return sum(array.file_bytes for array in self._by_axis("row", "shard")) + self.record_bytes

    @property
    def bytes(self) -> int:
        return (
            sum(array.bytes for array in self.arrays)
            + self.tokens_bytes
            + self.documents_bytes
            + self.num_shards * self.record_bytes
            + self.metadata_bytes
        )

    @property
    def largest_file(self) -> tuple[str, int]:
        files = [(array.name, array.file_bytes) for array in self.arrays]
        more = [(TOKENS, self.tokens_bytes), (DOCUMENTS, self.documents_bytes)]
        return max([*files, *more], key=lambda file: file[1])

    def _by_axis(self, *axes: str) -> list[ArraySize]:
        return [array for array in self.arrays if array.axis in axes]

    def bytes_of(self, *axes: str) -> int:
        """Bytes of all arrays whose first axis is one of `axes`."""
        return sum(array.bytes for array in self._by_axis(*axes))

    def bytes_to_write(self, num_shards: int, block_bytes: int, skeleton: bool) -> int:
        """Bytes that `num_shards` shards take in whole blocks of the file system; with `skeleton`, all other files too."""

        def in_blocks(num_bytes: int) -> int:
            return -(-num_bytes // block_bytes) * block_bytes

        shard = sum(in_blocks(array.file_bytes) for array in self._by_axis("row", "shard"))
        taken = num_shards * (shard + in_blocks(self.record_bytes))
        if skeleton:
            weights = [a.bytes for a in self.arrays if a.axis not in ("row", "shard")]
            taken += sum(in_blocks(part) for part in (*weights, self.tokens_bytes, self.documents_bytes))
            others = self.files - self.num_shards * self.files_a_shard - len(weights) - 1
            others -= bool(self.documents_bytes)
            taken += (others + self.directories) * block_bytes
        return taken

    def inodes_to_write(self, num_shards: int, skeleton: bool) -> int:
        """Files and directories that `num_shards` shards make; with `skeleton`, all others too."""
        others = self.inodes - self.num_shards * self.files_a_shard
        return num_shards * self.files_a_shard + (others if skeleton else 0)


def sizes_of(plan: Plan, stored_share: Mapping[str, float]) -> Sizes:
    """The sizes of the cache of `plan`.

    `stored_share` gives, for each compressed array, the bytes on disk for a byte of values.
    """
    shard_specs, weight_specs = shard_arrays(plan), weight_arrays(plan)
    arrays = tuple(
        _array_size(spec, stored_share) for spec in (*shard_specs.values(), *weight_specs.values())
    )
    num_groups = len(groups([*shard_specs, *weight_specs]))
    record = _record_bytes(shard_specs, plan.num_shards - 1)
    zarr_files = len(arrays) + num_groups + 1
    documents_bytes = token_sequences.documents_bytes(plan)
    return Sizes(
        arrays=arrays,
        num_shards=plan.num_shards,
        tokens_bytes=token_sequences.file_bytes(plan),
        documents_bytes=documents_bytes,
        record_bytes=record,
        metadata_bytes=zarr_files * ARRAY_JSON_BYTES + len(plan.to_json()) + record + ARRAY_JSON_BYTES,
        # tokens.npy, plan.json, MANIFEST.json, commits/model.json, and documents.npy where documents are known
        files=plan.num_shards * (len(shard_specs) + 1)
        + len(weight_specs)
        + zarr_files
        + 4
        + bool(documents_bytes),
        directories=len(arrays) + num_groups + 3,  # STORE, arrays.zarr, commits
        shard_memory_bytes=sum(spec.row_bytes * spec.rows_per_shard for spec in shard_specs.values()),
    )


def _array_size(spec: ArraySpec, stored_share: Mapping[str, float]) -> ArraySize:
    values = spec.row_bytes * spec.rows_per_shard
    if spec.compressed:
        values = round(values * stored_share[spec.name])
    num_chunks = spec.rows_per_shard // spec.chunk_rows
    return ArraySize(
        name=spec.name,
        axis=spec.dimensions[0],
        file_bytes=values + num_chunks * (CRC_BYTES + INDEX_BYTES) + CRC_BYTES,
        num_files=spec.shape[0] // spec.rows_per_shard,
        rows_per_file=spec.rows_per_shard,
        measured=spec.compressed,
    )


def _record_bytes(specs: Mapping[str, ArraySpec], shard: int) -> int:
    files = {
        f"{name}/{StorePaths.shard_key(shard, len(spec.shape))}": {"bytes": 10**7, "sha256": 64 * "0"}
        for name, spec in specs.items()
    }
    note = dict.fromkeys(NOTE_KEYS, "1.2.3")
    return len(document.encode({"plan": 64 * "0", "shard": shard, "files": files, **note}))
