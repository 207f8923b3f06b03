"""What a cache consists of when it is sent elsewhere: files that belong together, and the document that counts them.

In: an open cache. Out: parcels, in the order in which they are sent: tokens and the model's weights, then the committed
shards, then what was measured of heads. In each, the document comes last. Whether a parcel is complete elsewhere can be
told from its document there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from alens.errors import DamageError
from alens.store import document, typed
from alens.store.cache_reader import Cache
from alens.store.effect_files import EffectFiles
from alens.store.head_files import HeadFiles, HeadRecord
from alens.store.jacobian_files import JacobianFiles
from alens.store.paths import ARRAYS, DOCUMENTS, REACHES, SKELETON, TOKENS
from alens.store.records import FilesRecord

Contents = Literal["skeleton", "shard", "measured"]

Files = dict[str, dict[str, Any]]
"""`bytes` and `sha256` of each file, by its path in the cache."""


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """Some files of a cache, and the document that says that they are whole. Paths are relative to the cache."""

    contents: Contents
    record: str
    """Where the document is."""
    content: bytes
    """Its bytes."""
    files: Files
    """Those that it names, and the tokens, which the plan names."""

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self.content) + sum(int(file["bytes"]) for file in self.files.values())

    def files_there(self, content: bytes, where: str, identity: str) -> Files | None:
        """The files of this parcel elsewhere, as `content`, its record there, names them.

        None where that is not a whole record of the plan.
        """
        try:
            body = document.decode(content, where)
        except DamageError:
            return None
        kind = HeadRecord if self.contents == "measured" else FilesRecord
        if typed.wrong(kind, body) is not None or body["plan"] != identity:
            return None
        if self.contents == "measured":
            return {_array(self.record): body["file"]}
        by_plan = {path: self.files[path] for path in (TOKENS, DOCUMENTS) if path in self.files}
        return {**by_plan, **_with_folder(body["files"])}


def parcels(cache: Cache) -> Iterator[Parcel]:
    """The parcels of a cache. Raises `DamageError` where the model's weights or the tokens are not there."""
    yield _skeleton(cache)
    for shard in cache.shards:
        record = cache.commits.record(shard)
        yield Parcel(
            contents="shard",
            record=cache.paths.record(shard).relative_to(cache.paths.root).as_posix(),
            content=document.encode(record),
            files=_with_folder(record["files"]),
        )
    root, identity = cache.paths.root, cache.plan.identity
    kinds: list[HeadFiles[Any]] = [EffectFiles(root, identity)]
    kinds += [JacobianFiles(root, identity, reach) for reach in REACHES]
    for files in kinds:
        for shard in files.shards():
            for file in files.of_shard(shard):
                path = file.path.with_suffix(".json")
                noted = {"bytes": file.record.file.bytes, "sha256": file.record.file.sha256}
                name = path.relative_to(root).as_posix()
                yield Parcel(
                    contents="measured",
                    record=name,
                    content=document.content(path),
                    files={_array(name): noted},
                )


def _skeleton(cache: Cache) -> Parcel:
    record = cache.commits.skeleton()
    if record is None:
        raise DamageError(
            f"{cache.paths.skeleton} is missing or altered: run `alens cache` again, which makes it anew"
        )
    tokens = cache.plan.tokens
    files = {}
    for name, sha256 in ((TOKENS, tokens.sha256), (DOCUMENTS, tokens.documents_sha256)):
        path = cache.paths.root / name
        if sha256 is None:
            continue
        if not path.is_file():
            raise DamageError(f"{path} is missing: run `alens cache` again, which makes it anew")
        files[name] = {"bytes": path.stat().st_size, "sha256": sha256}
    files |= _with_folder(record["files"])
    return Parcel(contents="skeleton", record=SKELETON, content=document.encode(record), files=files)


def _with_folder(files: Mapping[str, Any]) -> Files:
    return {f"{ARRAYS}/{key}": dict(file) for key, file in files.items()}


def _array(name: str) -> str:
    return f"{name.removesuffix('.json')}.npy"
