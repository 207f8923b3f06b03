"""What is measured of heads beside a cache, as files in a folder of its directory.

In: numbers of some heads of a layer, measured on some sequences. Out: an array file, and a record with its hash, put
last. Whenever the process is killed, a file either counts or is absent. Files are only ever added: heads that are
measured later get files of their own. `effect_files.py` and `jacobian_files.py` say what the numbers are.
Shapes: X the axis of an array before its heads, H heads, D d_model.
"""

import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Lt

from alens.errors import DamageError, RequestError
from alens.heads import Head, Heads
from alens.store import document, durable, typed
from alens.store.leftovers import clear
from alens.store.links import link_before
from alens.store.records import END_OF_TIME, FileRecord
from alens.store.stage import Stage
from alens.store.typed import OPEN, Amount, Natural

ARRAY_NAME = re.compile(r"\d{2,5}\.[0-9a-f]+\.npy", re.ASCII)
_RECORD_NAME = re.compile(r"\d{2,5}\.[0-9a-f]+\.json", re.ASCII)
_FOLDER = re.compile(r"\d{6,}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class HeadRecord:
    """The document beside an array: what it holds."""

    __pydantic_config__ = OPEN

    plan: str
    """The identity of the cache's plan."""
    shard: Natural
    """Which sequences of the sample: the first, second, ... few of them."""
    layer: Natural
    heads: tuple[Natural, ...]
    """The second axis of the array."""
    sequences: tuple[Natural, ...]
    """The sequences that the numbers were measured on."""
    file: FileRecord
    worker: str = "0/1"
    device: str | None = None
    rows: Natural = 0
    seconds: Amount = 0.0
    finished: Annotated[float, Ge(0), Lt(END_OF_TIME)] = 0.0

    def __post_init__(self) -> None:
        """Raises `TypeError` for what cannot be."""
        for name, values in (("heads", self.heads), ("sequences", self.sequences)):
            if not 0 < len(set(values)) == len(values):
                raise TypeError(f"{name} are not named once each")


Record = TypeVar("Record", bound=HeadRecord)


@dataclass(frozen=True)
class HeadFile(Generic[Record]):
    """One array: its record, and where it is."""

    path: Path
    record: Record
    mend: str
    stage: Stage | None = None

    def read(self, before: int, d_model: int) -> npt.NDArray[np.float16]:
        """(X, H, D) float16, with `before` for X. Raises `DamageError` when it is not what was written."""
        record = self.record
        if self.stage is not None:
            key = self.path.relative_to(self.stage.root).as_posix()
            self.stage.have_sound(key, {"bytes": record.file.bytes, "sha256": record.file.sha256})
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise DamageError(f"{self.path} cannot be read ({error.strerror}): {self.mend}") from None
        if hashlib.sha256(content).hexdigest() != record.file.sha256:
            raise DamageError(f"{self.path} is not what was written: {self.mend}")
        shape = (before, len(record.heads), d_model)
        try:
            values_XHD = np.load(io.BytesIO(content), allow_pickle=False)
        except Exception as error:  # objects, or something else than an array
            raise DamageError(f"{self.path} holds no numbers ({error}): {self.mend}") from None
        if values_XHD.dtype != np.float16 or values_XHD.shape != shape:
            raise DamageError(
                f"{self.path} holds {values_XHD.shape} {values_XHD.dtype}, its record says {shape} float16: {self.mend}"
            )
        if not np.isfinite(values_XHD).all():
            raise DamageError(f"{self.path} holds numbers that are not finite: {self.mend}")
        return np.asarray(values_XHD)


class HeadFiles(Generic[Record]):
    """The files of one folder beside one cache."""

    COMMAND: ClassVar[str]
    """The command that writes it."""
    RECORD: type[Record]

    def __init__(self, root: Path, identity: str, name: str, stage: Stage | None = None) -> None:
        """`identity` is that of the cache's plan; records of others do not count. `name` is that of the folder. `stage`
        copies the files of a cache that is elsewhere: the records now, arrays when they are read.
        """
        self.root, self.folder, self._name, self._identity = root, root / name, name, identity
        self._stage = stage
        if stage is not None:
            stage.documents([path for path in stage.names(name) or () if path.endswith(".json")])
        self.mend = f"remove it, and run `{self.COMMAND}` again"

    def shards(self) -> list[int]:
        """The shards that have a folder, ascending."""
        try:
            names = [path.name for path in self.folder.iterdir() if _FOLDER.fullmatch(path.name)]
        except OSError:
            return []
        return sorted(int(name) for name in names)

    def of_shard(self, shard: int) -> Iterator[HeadFile[Record]]:
        """The files of a shard that count: those with a whole record of this plan, in the order of their names."""
        for path in self.records(shard):
            record = self._record(path)
            if record is not None and path == self.path(record.shard, record.layer, record.heads):
                yield HeadFile(path.with_suffix(".npy"), record, self.mend, self._stage)

    def by_head(self, shard: int) -> Mapping[Head, HeadFile[Record]]:
        """The file of each head that was measured on a shard's sequences."""
        return {
            (file.record.layer, head): file for file in self.of_shard(shard) for head in file.record.heads
        }

    def left(self, shard: int, heads: Heads) -> Heads | None:
        """Those of `heads` that were not measured on a shard's sequences yet; None where all were."""
        there = self.by_head(shard)
        left = [head for head in heads if head not in there]
        return Heads.grouped(left) if left else None

    def records(self, shard: int) -> list[Path]:
        """All that is named like a record of a shard, whole or not."""
        try:
            return sorted(
                path for path in self.folder_of_shard(shard).iterdir() if _RECORD_NAME.fullmatch(path.name)
            )
        except OSError:
            return []

    def path(self, shard: int, layer: int, heads: Sequence[int]) -> Path:
        """The record of these heads; the array is beside it. The heads are named by a bit each."""
        mask = sum(1 << head for head in heads)
        return self.folder_of_shard(shard) / f"{layer:02d}.{mask:x}.json"

    def put(
        self,
        shard: int,
        layer: int,
        heads: Sequence[int],
        values_XHD: npt.NDArray[np.float16],
        note: Mapping[str, Any],
    ) -> None:
        """Write the numbers of `heads`, then their record. `note` is the rest of the record.

        Raises `RequestError` where a folder is a link, `RunError` when the disk refuses, `DamageError` when the array
        does not read back.
        """
        path = self.path(shard, layer, heads)
        if (link := link_before(self.root, path.relative_to(self.root).as_posix())) is not None:
            raise RequestError(
                f"{self.root / link} is a link, and {self._name} is not written through one: put a directory in its place"
            )
        assert values_XHD.dtype == np.float16 and values_XHD.shape[1] == len(heads)
        buffer = io.BytesIO()
        np.save(buffer, values_XHD, allow_pickle=False)
        content = buffer.getbuffer()
        with durable.write_errors(self.root):
            array = path.with_suffix(".npy")
            clear(array, path)
            durable.put(array, content)
            durable.check_on_disk(array, content)
            file = {"bytes": content.nbytes, "sha256": hashlib.sha256(content).hexdigest()}
            body = {"plan": self._identity, "shard": shard, "layer": layer, "heads": list(heads)}
            durable.put(path, document.encode({**body, "file": file, **note}))

    def folder_of_shard(self, shard: int) -> Path:
        """Where the files of a shard are."""
        return self.folder / f"{shard:06d}"

    def _record(self, path: Path) -> Record | None:
        """A record of this plan. None: it is absent, damaged or of another plan."""
        try:
            body = document.decode(document.content(path), str(path))
            record = typed.parse(self.RECORD, body, str(path), self.mend)
        except (OSError, DamageError):
            return None
        return record if record.plan == self._identity else None
