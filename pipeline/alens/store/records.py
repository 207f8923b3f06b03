"""What the records of a cache hold: `commits/000007.json`, `commits/model.json`, `MANIFEST.json`.

In: nothing. Out: dataclasses that `typed` compares documents with, so that a record of wrong types is an absent one and
a message can say which field is wrong.
"""

import re
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Lt

from alens.store.typed import OPEN, STRICT, Amount, Natural

END_OF_TIME = 253_402_300_800.0
"""The year 10000, in seconds since 1970: what no date can be written for."""

_WORKER = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """One file, as it was written."""

    __pydantic_config__ = STRICT

    bytes: Natural
    sha256: str


@dataclass(frozen=True, kw_only=True)
class FilesRecord:
    """`commits/model.json`: the files of `arrays.zarr` that are no shards."""

    __pydantic_config__ = OPEN

    plan: str
    """The identity of the plan."""
    files: dict[str, FileRecord]
    """By their path in arrays.zarr."""

    def __post_init__(self) -> None:
        """Raises `TypeError` for a path that leads elsewhere: what is read may come from anywhere."""
        for key in self.files:
            if any(part in ("", ".", "..") for part in key.split("/")) or not key.isprintable():
                raise TypeError(f"files has {key[:60]!r}, which is no path in arrays.zarr")


@dataclass(frozen=True, kw_only=True)
class ShardRecord(FilesRecord):
    """`commits/000007.json`: the files of a shard, and what its worker noted."""

    shard: Natural
    worker: str = "0/1"
    """I/N, as it was started."""
    device: str | None = None
    rows: Natural = 0
    seconds: Amount = 0.0
    """Seconds of its worker's time, from the shard before to this one."""
    finished: Annotated[float, Ge(0), Lt(END_OF_TIME)] = 0.0
    """Seconds since 1970, by its host's clock."""
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
    """`MANIFEST.json`: all shards are committed."""

    __pydantic_config__ = OPEN

    plan: str
    shards: Natural
    fingerprint: str
    """The hash of the hashes of all their files."""
    rows: Natural | None = None
