"""Reads spans of rows from the arrays on disk through Zarr, and checks them.

In: the paths, plan and records of a cache. Out: numpy arrays. Zarr alone would read a missing shard as fill values,
and take any file of the right size for the one that was committed. If at least half of a file is read at once, its
hash is compared with its record, once per process; if less is read, only its size and checksums (crc32c) are. The
metadata say how bytes become numbers, so they must agree with the plan (`metadata.py`). No more memory is taken than
the files on disk can fill, and the numbers must be possible ones (`values.py`).
"""

import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from alens.errors import DamageError
from alens.store import compressed_files, values
from alens.store.arrays import ArraySpec
from alens.store.checked_files import CheckedFiles
from alens.store.commits import Commits
from alens.store.document import MEND
from alens.store.paths import StorePaths
from alens.store.schema import Plan
from alens.store.stage import Stage
from alens.store.values import Array


class CheckedArrays:
    """The arrays of one cache."""

    def __init__(
        self,
        paths: StorePaths,
        plan: Plan,
        commits: Commits,
        *,
        limits: bool = True,
        stage: Stage | None = None,
    ) -> None:
        """Without `limits`, impossible numbers are returned too, so that they can be compared with the right ones."""
        self._limits = limits
        self.paths, self._plan, self._commits = paths, plan, commits
        self._arrays: dict[str, Any] = {}
        self._files = CheckedFiles(paths.arrays, stage)

    def span(self, spec: ArraySpec, start: int, stop: int) -> Array:
        """Entries `start` to `stop - 1`, shard by shard, so that an error names the right file."""
        parts = [np.empty((0, *spec.shape[1:]), dtype=spec.dtype)]
        size = spec.rows_per_shard
        for shard in range(start // size, -(-stop // size)) if start < stop else ():
            first, last = max(start, shard * size), min(stop, (shard + 1) * size)
            with self._files.reading(*self._recorded(spec, shard)):
                self.check_file(spec, shard, whole=2 * (last - first) >= size)
                parts.append(self._read(spec, first, last, shard))
        return parts[1] if len(parts) == 2 else np.concatenate(parts)

    def weights(self, spec: ArraySpec) -> Array:
        """The whole of an array that has one file."""
        key = self._key(spec, 0)
        recorded = self._skeleton.get(key)
        self._check_size(spec, key, recorded, MEND)
        with self._files.reading(key, recorded):
            self._files.check(key, recorded, MEND, whole=True)
            return self._read(spec, 0, spec.shape[0], None)

    def check_file(self, spec: ArraySpec, shard: int, *, whole: bool) -> None:
        """Compare the file of a shard with its record, with `whole` its hash too. Raises `DamageError`."""
        key, recorded = self._recorded(spec, shard)
        self._check_size(spec, key, recorded, _mend(shard))
        self._files.check(key, recorded, _mend(shard), whole=whole)
        if spec.compressed:
            self._check_chunks(spec, key, _mend(shard))

    def have(self, specs: Iterable[ArraySpec], shard: int) -> None:
        """Have the files of a shard on this machine, where the cache is elsewhere."""
        files = dict(self._recorded(spec, shard) for spec in specs)
        self._files.have({key: recorded for key, recorded in files.items() if recorded is not None})

    def _recorded(self, spec: ArraySpec, shard: int) -> tuple[str, Mapping[str, Any] | None]:
        """The key of a shard's file, and what its record says of it."""
        key = self._key(spec, shard)
        return key, self._commits.record(shard)["files"].get(key)

    def _check_chunks(self, spec: ArraySpec, key: str, mend: str) -> None:
        path = self.paths.arrays / key
        try:
            what = compressed_files.wrong(path, spec)
        except OSError as error:
            raise DamageError(f"{path} cannot be read ({error.strerror}): {mend}") from None
        if what is not None:
            raise DamageError(f"{path} has {what}: {mend}")

    def _check_size(self, spec: ArraySpec, key: str, recorded: Mapping[str, Any] | None, mend: str) -> None:
        """Raises `DamageError` for a plan that claims more numbers than there are, before memory is taken for them."""
        if recorded is not None and recorded["bytes"] < spec.least_file_bytes:
            raise DamageError(
                f"{self.paths.arrays / key} has {recorded['bytes']:,} bytes by its record, and what the plan says it "
                f"holds takes {spec.least_file_bytes:,}: {mend}"
            )

    def _key(self, spec: ArraySpec, shard: int) -> str:
        return str(self.paths.shard_file(spec.name, shard, len(spec.shape)).relative_to(self.paths.arrays))

    def _read(self, spec: ArraySpec, start: int, stop: int, shard: int | None) -> Array:
        """`shard` is None for the model's weights."""
        file = self.paths.shard_file(spec.name, shard or 0, len(spec.shape))
        try:
            array = np.asarray(self._array(spec)[start:stop])
        except (OSError, MemoryError, DamageError):
            raise
        except Exception as error:  # what a codec says depends on the codec
            raise DamageError(f"{file} is damaged: {error}; {_mend(shard)}") from error
        if self._limits and (what := values.wrong(self._plan, spec, shard, array)) is not None:
            raise DamageError(
                f"{file} has {what}: `alens verify` says whether it was altered; if not, it was written so, and its "
                "cache has to be made anew"
            )
        return array

    def _array(self, spec: ArraySpec) -> Any:
        if spec.name not in self._arrays:
            import zarr  # takes 0.2 s, and whoever reads records alone has no use for it

            self._check_metadata(spec)
            try:
                array = zarr.open_array(self._store, path=spec.name, mode="r")
            except Exception as error:  # zarr raises many kinds for missing or altered metadata
                raise DamageError(
                    f"{self.paths.arrays / spec.name / 'zarr.json'} is missing or damaged ({error}): {MEND}"
                ) from error
            self._arrays[spec.name] = array
        return self._arrays[spec.name]

    def _check_metadata(self, spec: ArraySpec) -> None:
        """Compare the zarr.json with the plan: it says how bytes become numbers, so a changed one would change every
        number."""
        from alens.store import metadata

        key = f"{spec.name}/zarr.json"
        file = self.paths.arrays / key
        try:
            content = metadata.content(file)
        except OSError as error:
            raise DamageError(f"{file} cannot be read ({error.strerror}): {MEND}") from None
        if self._skeleton.get(key, {}).get("sha256") != hashlib.sha256(content).hexdigest():
            raise DamageError(f"{file} was altered: {MEND}")
        if metadata.differs(self._plan, {spec.name: spec}, key, content):
            raise DamageError(f"{file} {metadata.NOT_THE_PLANS}: {MEND}")

    @cached_property
    def _store(self) -> Any:
        from zarr.storage import LocalStore

        return LocalStore(self.paths.arrays, read_only=True)

    @cached_property
    def _skeleton(self) -> Mapping[str, Any]:
        """Size and hash of each file of `arrays.zarr` that is not part of a shard."""
        record = self._commits.skeleton()
        if record is None:
            raise DamageError(f"{self.paths.skeleton} is missing or damaged: {MEND}")
        files: Mapping[str, Any] = record["files"]
        return files


def _mend(shard: int | None) -> str:
    return MEND if shard is None else f"`alens verify --repair` queues shard {shard} for rewriting"
