"""What `verify` needs of a cache at an address: its documents on this machine, and a look at every byte of the others.

In: an address. Out: a folder that holds the documents of the cache and nothing else, a check of one file that reads it
through without keeping it, and findings about objects that no cache has. Nothing is taken from a stage: what is verified
is what lies there.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from alens.errors import DamageError, RequestError
from alens.printable import printable
from alens.remote.address import ObjectAddress
from alens.remote.objects import Objects
from alens.store import document, typed
from alens.store.findings import Finding, Trouble
from alens.store.foreign import Known
from alens.store.paths import (
    ARRAYS,
    COMMITS,
    EFFECTS,
    JACOBIANS,
    MANIFEST,
    PLAN,
    SKELETON,
    no_cache,
    record_name,
)
from alens.store.records import Manifest
from alens.store.stage import TRIES

AT_ONCE = 16

MEND = "mend the cache that it was copied from, and copy it there again"


class FarCache:
    """A cache at an address, as `verify` reads it. `root` is the folder with its documents."""

    def __init__(self, objects: Objects, root: Path) -> None:
        """Copies the documents to `root`. Raises `RequestError` where there is no cache, `RunError` where the network fails."""
        self.objects, self.root = objects, root
        listed = objects.names()
        self._sizes = None if listed is None else dict(listed)
        if self._sizes is None:
            first = [PLAN, MANIFEST, SKELETON]
            self._fetch(first)
            self._fetch(self._records_of_manifest())
        else:
            self._fetch([name for name in self._sizes if name.endswith(".json") and not _is_metadata(name)])
            for name in self._sizes:
                if name.endswith(".npy") and name.startswith((f"{EFFECTS}/", f"{JACOBIANS}/")):
                    self._put(name, b"")  # its name alone is looked at
        if not (root / PLAN).exists() and not (root / COMMITS).exists():
            raise RequestError(no_cache(str(objects.address)))
        self._fetch(self._metadata())

    def _fetch(self, names: list[str]) -> None:
        """Copy documents; those that are not there stay away."""

        def one(name: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                self._put(name, self.objects.read(name))

        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="alens-verify") as pool:
            for _ in pool.map(one, names):
                pass

    def _put(self, name: str, content: bytes) -> None:
        if any(part in ("", ".", "..") for part in name.split("/")):  # another object's name
            return
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def _records_of_manifest(self) -> list[str]:
        """Raises `RequestError` where nothing says which records there are."""
        with contextlib.suppress(OSError, DamageError):
            body = document.decode(document.content(self.root / MANIFEST), MANIFEST)
            if typed.wrong(Manifest, body) is None:
                return [f"{COMMITS}/{record_name(shard)}" for shard in range(body["shards"])]
        if not (self.root / PLAN).exists():
            return []
        raise RequestError(
            f"{self.objects.address} has no whole {MANIFEST}, and what it holds cannot be listed: verify it at s3:// or in "
            "its directory"
        )

    def _metadata(self) -> list[str]:
        with contextlib.suppress(OSError, DamageError, KeyError, AttributeError, TypeError):
            body = document.decode(document.content(self.root / SKELETON), SKELETON)
            return [f"{ARRAYS}/{key}" for key in body["files"] if key.endswith("zarr.json")]
        return []

    def size(self, path: str) -> int:
        """The bytes of an object; 0 where there is none."""
        return (self.objects.size(path) if self._sizes is None else self._sizes.get(path)) or 0

    def look(self, path: str, recorded: Mapping[str, Any]) -> Trouble | None:
        """Read every byte of an object, and compare with its recorded `bytes` and `sha256`. None: they agree.

        Another hash is believed when it comes twice: a bit may have changed on the way.
        """
        size = recorded.get("bytes", self.size(path))
        for _ in range(TRIES):
            digest = hashlib.sha256()
            try:
                for block in self.objects.blocks(path, size):
                    digest.update(block)
            except FileNotFoundError:
                return Trouble("missing", "is not there", MEND)
            except DamageError:
                return Trouble("damaged", f"has {self.size(path):,} bytes, {size:,} were written", MEND)
            if digest.hexdigest() == recorded["sha256"]:
                return None
        return Trouble("damaged", "its SHA-256 is not that of what was written", MEND)

    def other_entries(self, known: Known) -> Iterator[Finding]:
        """Objects that no cache has; none where they cannot be listed."""
        for name in sorted(self._sizes or ()):
            if name not in known.files and known.shard_of(name) is None and not known.may_be_array(name):
                mend = "it is left alone: remove it if you do not need it there"
                yield Finding(
                    kind="foreign", path=printable(name), what="is an object that no cache has", mend=mend
                )


@contextlib.contextmanager
def far_cache(address: ObjectAddress) -> Iterator[FarCache]:
    """The cache at `address`; its documents are in a temporary folder until the block ends."""
    with tempfile.TemporaryDirectory(prefix="alens-verify-") as folder:
        yield FarCache(Objects(address), Path(folder))


def _is_metadata(name: str) -> bool:
    return name.startswith(f"{ARRAYS}/")
