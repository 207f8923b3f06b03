"""What the records of a cache hold: `commits/000007.json`, `commits/model.json`, `MANIFEST.json`.

Dataclasses with which `typed` compares documents: a record with wrong types counts as absent, and a message can name
the wrong field.
"""

import re
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Lt

from alens.store.typed import OPEN, STRICT, Amount, Natural

END_OF_TIME = 253_402_300_800.0
"""The year 10000, in seconds since 1970: dates cannot be written beyond it."""

_WORKER = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """One file, as it was written."""

    __pydantic_config__ = STRICT

    bytes: Natural
    sha256: str


@dataclass(frozen=True, kw_only=True)
class FilesRecord:
    """`commits/model.json`: the files of `arrays.zarr` that are not part of a shard."""

    __pydantic_config__ = OPEN

    plan: str
    """The identity of the plan."""
    files: dict[str, FileRecord]
    """By their path in arrays.zarr."""

    def __post_init__(self) -> None:
        """Raises `TypeError` for a path that leads elsewhere: a record that is read may come from anywhere."""
        for key in self.files:
            if any(part in ("", ".", "..") for part in key.split("/")) or not key.isprintable():
                raise TypeError(f"files has {key[:60]!r}, which is not a path in arrays.zarr")


@dataclass(frozen=True, kw_only=True)
class ShardRecord(FilesRecord):
    """`commits/000007.json`: the files of a shard, and notes of its worker."""

    shard: Natural
    worker: str = "0/1"
    """I/N, as the worker was started."""
    device: str | None = None
    rows: Natural = 0
    seconds: Amount = 0.0
    """Seconds that its worker took, from the shard before to this one."""
    finished: Annotated[float, Ge(0), Lt(END_OF_TIME)] = 0.0
    """Seconds since 1970, by the clock of the worker's host."""
    host: str | None = None
    alens: str | None = None
    torch: str | None = None
    zarr: str | None = None

    def __post_init__(self) -> None:
        """Raises `TypeError`."""
        super().__post_init__()
        matched = _WORKER.fullmatch(self.worker)
        if matched is None or not int(matched[1]) < int(matched[2]):
            raise TypeError(f"worker is {self.worker[:60]!r}: input should be I/N, with I below N")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`MANIFEST.json`: it says that all shards are committed."""

    __pydantic_config__ = OPEN

    plan: str
    shards: Natural
    fingerprint: str
    """The hash over the hashes of all shard files."""
    rows: Natural | None = None
