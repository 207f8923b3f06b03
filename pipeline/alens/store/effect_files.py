"""The measured effects of heads beside a cache, as files: `effects/` in its directory.

In: effects of some heads of a layer, on the rows of some sequences. Out: an array file, and a record with its hash, put
last. Whenever the process is killed, a file either counts or is absent. Files are only ever added: heads that are
measured later get files of their own.
Shapes: N rows, H heads, D d_model.
"""

import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Lt

from alens.errors import DamageError, RequestError
from alens.store import document, durable, typed
from alens.store.leftovers import clear
from alens.store.links import link_before
from alens.store.paths import EFFECTS
from alens.store.records import END_OF_TIME, FileRecord
from alens.store.typed import OPEN, Amount, Natural

FIRST_POSITION = 1
"""Effects are kept from this position on: position 0 sees only itself."""

MEND = "remove it, and run `alens effects` again"

ROWS_PER_SHARD = 512
"""About the rows that one file has of each head: whole sequences, one at least."""

ARRAY_NAME = re.compile(r"\d{2,5}\.[0-9a-f]+\.npy", re.ASCII)
_RECORD_NAME = re.compile(r"\d{2,5}\.[0-9a-f]+\.json", re.ASCII)
_FOLDER = re.compile(r"\d{6,}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class EffectRecord:
    """The document beside an array of effects: what it holds."""

    __pydantic_config__ = OPEN

    plan: str
    """The identity of the cache's plan."""
    shard: Natural
    """Which sequences of the sample: the first, second, ... few of them."""
    layer: Natural
    heads: tuple[Natural, ...]
    """The second axis of the array."""
    sequences: tuple[Natural, ...]
    """The sequences whose rows are its first axis, one after the other, each from position 1 on."""
    mean_sha256: str
    """The hash of the mean z that was put in the place of z, (H, d_head) float32."""
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


@dataclass(frozen=True)
class EffectFile:
    """One array of effects: its record, and where it is."""

    path: Path
    record: EffectRecord

    def read(self, seq_len: int, d_model: int) -> npt.NDArray[np.float16]:
        """(N, H, D) float16. Raises `DamageError` when it is not what was written."""
        record = self.record
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise DamageError(f"{self.path} cannot be read ({error.strerror}): {MEND}") from None
        if hashlib.sha256(content).hexdigest() != record.file.sha256:
            raise DamageError(f"{self.path} is not what was written: {MEND}")
        shape = (len(record.sequences) * (seq_len - FIRST_POSITION), len(record.heads), d_model)
        try:
            values_NHD = np.load(io.BytesIO(content), allow_pickle=False)
        except Exception as error:  # objects, or something else than an array
            raise DamageError(f"{self.path} holds no numbers ({error}): {MEND}") from None
        if values_NHD.dtype != np.float16 or values_NHD.shape != shape:
            raise DamageError(
                f"{self.path} holds {values_NHD.shape} {values_NHD.dtype}, its record says {shape} float16: {MEND}"
            )
        if not np.isfinite(values_NHD).all():
            raise DamageError(f"{self.path} holds numbers that are not finite: {MEND}")
        return np.asarray(values_NHD)


class EffectFiles:
    """The files of effects beside one cache."""

    def __init__(self, root: Path, identity: str) -> None:
        """`identity` is that of the cache's plan; records of others do not count."""
        self.root, self.folder, self._identity = root, root / EFFECTS, identity

    def shards(self) -> list[int]:
        """The shards that have a folder, ascending."""
        try:
            names = [path.name for path in self.folder.iterdir() if _FOLDER.fullmatch(path.name)]
        except OSError:
            return []
        return sorted(int(name) for name in names)

    def of_shard(self, shard: int) -> Iterator[EffectFile]:
        """The files of a shard that count: those with a whole record of this plan, in the order of their names."""
        for path in self.records(shard):
            record = self._record(path)
            if record is not None and path == self.path(record.shard, record.layer, record.heads):
                yield EffectFile(path.with_suffix(".npy"), record)

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
        effects_NHD: npt.NDArray[np.float16],
        note: Mapping[str, Any],
    ) -> None:
        """Write the effects of `heads` on a shard's rows, then their record. `note` is the rest of the record.

        Raises `RequestError` where a folder is a link, `RunError` when the disk refuses, `DamageError` when the array
        does not read back.
        """
        path = self.path(shard, layer, heads)
        if (link := link_before(self.root, path.relative_to(self.root).as_posix())) is not None:
            raise RequestError(
                f"{self.root / link} is a link, and effects are not written through one: put a directory in its place"
            )
        assert effects_NHD.dtype == np.float16 and effects_NHD.shape[1] == len(heads)
        buffer = io.BytesIO()
        np.save(buffer, effects_NHD, allow_pickle=False)
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

    def _record(self, path: Path) -> EffectRecord | None:
        """A record of this plan. None: it is absent, damaged or of another plan."""
        try:
            body = document.decode(document.content(path), str(path))
            record = typed.parse(EffectRecord, body, str(path), MEND)
        except (OSError, DamageError):
            return None
        return record if record.plan == self._identity else None
