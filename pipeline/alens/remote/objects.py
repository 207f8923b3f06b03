"""Lists, reads and writes the objects of one address, through obstore.

In: an `ObjectAddress`, paths below it. Out: bytes, or a line that says what failed. obstore is asked to try nothing again:
`patience` does, so that one count and one time hold for all ways to fail. Why obstore: decision 0072.
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, cast

from alens.errors import DamageError, RequestError
from alens.remote.address import ObjectAddress
from alens.remote.patience import PATIENCE, Answer, Patience, patiently

BLOCK_BYTES = 8 * 2**20
"""A larger object is read in blocks of so many bytes: a block that fails is read again, not the object."""

AHEAD = 4
"""Blocks of one object that are asked for at once."""

PART_BYTES = 16 * 2**20
"""A larger object is sent in parts of so many bytes. S3 takes 10,000 parts: an object of 156 GiB."""

MOST_BYTES = 32 * 2**20
"""What `read` takes into memory: documents have no more bytes."""

PAGE = 1000
"""Names that are listed by one request, as S3 gives them."""

SHA256 = "sha256"
"""The name under which an object keeps the hash of its bytes."""

INSTALL = "pip install 'alens[s3]'"

Bytes = bytes | memoryview


class Readable(Protocol):
    """Where the files of a store are: objects of an address, or a directory."""

    def url(self, path: str) -> str:
        """Where one is, for messages."""

    def names(self, folder: str = "") -> Iterator[tuple[str, int]] | None:
        """Path and bytes of each in a folder and below it; None where they cannot be listed."""

    def size(self, path: str) -> int | None:
        """The bytes of one; None where it is not there."""

    def read(self, path: str, most_bytes: int = MOST_BYTES) -> bytes:
        """All bytes of a small one. Raises `FileNotFoundError`."""

    def blocks(self, path: str, size: int) -> Iterator[Bytes]:
        """All bytes of one that has `size` bytes, in order. Raises `FileNotFoundError`, `DamageError` for another size."""


class Objects:
    """The objects of one address. Threads may share it; it is cheap to make and asks nothing of the network."""

    def __init__(self, address: ObjectAddress, patience: Patience | None = None) -> None:
        """Raises `RequestError` where obstore is not installed."""
        self.address, self.patience = address, PATIENCE if patience is None else patience
        try:
            import obstore
        except ImportError:
            raise RequestError(f"{address} is read with obstore, which is not installed: {INSTALL}") from None
        self._obstore = obstore

    def __repr__(self) -> str:
        return f"<Objects of {self.address}>"

    def url(self, path: str) -> str:
        """Where an object is, for messages."""
        return f"{self.address}/{path}"

    # What is there

    def names(self, folder: str = "") -> Iterator[tuple[str, int]] | None:
        """Path and bytes of every object below `folder`, a page at a time; None for an address that cannot be listed
        (https)."""
        return self._listed(folder) if self.address.is_bucket else None

    def _listed(self, folder: str) -> Iterator[tuple[str, int]]:
        after: str | None = None
        while True:
            page = self._try("cannot list", folder, partial(self._page, folder, after))
            yield from ((entry["path"], entry["size"]) for entry in page)
            if len(page) < PAGE:
                return
            after = page[-1]["path"]

    def _page(self, folder: str, after: str | None) -> list[Any]:
        listing = self._obstore.list(self._store, folder or None, offset=after, chunk_size=PAGE)
        return list(next(iter(listing), []))

    def size(self, path: str) -> int | None:
        """The bytes of an object; None where there is none."""
        try:
            return int(
                self._try("cannot look at", path, lambda: self._obstore.head(self._store, path))["size"]
            )
        except FileNotFoundError:
            return None

    def exists(self, path: str) -> bool:
        """Whether there is such an object."""
        return self.size(path) is not None

    # Reading

    def read(self, path: str, most_bytes: int = MOST_BYTES) -> bytes:
        """All bytes of an object. Raises `FileNotFoundError`, and `DamageError` for one of more than `most_bytes`."""

        def whole() -> bytes:
            answer = self._obstore.get(self._store, path)
            size = answer.meta["size"]
            if size > most_bytes:
                raise DamageError(
                    f"{self.url(path)} has {size:,} bytes, more than the {most_bytes:,} allowed"
                )
            content: bytes = answer.bytes().to_bytes()
            return content

        return self._try("cannot read", path, whole)

    def blocks(self, path: str, size: int) -> Iterator[Bytes]:
        """All bytes of an object that has `size` bytes, in order, a few blocks ahead.

        Raises `FileNotFoundError`, `DamageError` where it has another size, `RunError` where the network fails.
        """
        first = self._block(path, 0, size)
        if first is None:
            yield from self._streamed(path, size)
            return
        yield first
        starts = iter(range(BLOCK_BYTES, size, BLOCK_BYTES))
        if size <= BLOCK_BYTES:
            return
        pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="alens-remote")
        try:
            waiting = deque(pool.submit(self._block, path, start, size) for start in _some(starts, AHEAD))
            while waiting:
                block = waiting.popleft().result()
                waiting.extend(pool.submit(self._block, path, start, size) for start in _some(starts, 1))
                yield cast(Bytes, block)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _block(self, path: str, start: int, size: int) -> Bytes | None:
        """The block at `start`; None where the server gives objects only whole."""
        stop = min(size, start + BLOCK_BYTES)

        def request() -> Bytes | None:
            options = {} if size <= BLOCK_BYTES else {"range": (start, stop)}
            try:
                answer = self._obstore.get(self._store, path, options=options)
            except self._obstore.exceptions.NotSupportedError:
                return None
            self._check_size(path, answer.meta["size"], size)
            return memoryview(answer.bytes())

        return self._try("cannot read", path, request)

    def _streamed(self, path: str, size: int) -> Iterator[Bytes]:
        """As `blocks`, by one request. Where that fails, the next one passes over what was read."""
        done = 0
        parts: Iterator[Any] = iter(())

        def next_part() -> Bytes:
            nonlocal parts
            try:
                return memoryview(next(parts))
            except StopIteration:
                pass
            answer = self._obstore.get(self._store, path)
            self._check_size(path, answer.meta["size"], size)
            parts = _after(done, answer.stream(min_chunk_size=BLOCK_BYTES))
            return memoryview(next(parts))

        while done < size:
            part = self._try("cannot read", path, next_part)
            done += len(part)
            yield part

    def _check_size(self, path: str, size: int, expected: int) -> None:
        if size != expected:
            raise DamageError(
                f"{self.url(path)} has {size:,} bytes, not the {expected:,} that were committed"
            )

    # Writing

    def put(self, path: str, content: Path | bytes, sha256: str | None = None) -> None:
        """Write a whole object, from a file of this machine or from memory; readers see the old object or the new one.

        `sha256` is kept beside it, for `sha256_of`. Raises `RequestError` for an address that is only read, `RunError`
        where the network fails.
        """
        self.check_writable()
        noted = {} if sha256 is None else {SHA256: sha256}

        def request() -> None:
            self._obstore.put(
                self._store, path, content, attributes=noted, chunk_size=PART_BYTES, max_concurrency=AHEAD
            )

        self._try("cannot write", path, request)

    def create(self, path: str, content: bytes) -> bool:
        """As `put`, where there is no such object yet; False where there is one, and nothing was written."""
        self.check_writable()

        def request() -> bool:
            try:
                self._obstore.put(self._store, path, content, mode="create")
            except self._obstore.exceptions.AlreadyExistsError:
                return False
            return True

        return self._try("cannot write", path, request)

    def sha256_of(self, path: str) -> str | None:
        """The hash that `put` was given with an object; None where there is none, or no object."""

        def request() -> str | None:
            answer = self._obstore.get(self._store, path, options={"head": True})
            noted = answer.attributes.get(SHA256)
            return None if noted is None else str(noted)

        try:
            return self._try("cannot look at", path, request)
        except FileNotFoundError:
            return None

    def check_writable(self) -> None:
        """Raises `RequestError` for an address that is only read."""
        if not self.address.is_bucket:
            raise RequestError(f"{self.address} can only be read: write to s3://BUCKET/PREFIX")

    def _try(self, what: str, path: str, request: Callable[[], Answer]) -> Answer:
        return patiently(request, what, self.url(path) if path else str(self.address), self.patience)

    @cached_property
    def _store(self) -> Any:
        """obstore's own object. Its retries are off."""
        from obstore.store import HTTPStore, S3Store

        patience = self.patience
        client: Any = {
            "connect_timeout": timedelta(seconds=patience.connect_s),
            "read_timeout": timedelta(seconds=patience.silence_s),
            "timeout": timedelta(seconds=patience.request_s),
            "allow_http": self.address.scheme == "http" or _endpoint().startswith("http://"),
        }
        if (certificates := os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")) is not None:
            with contextlib.suppress(OSError):
                client["root_certificate"] = Path(certificates).read_bytes()
        retry: Any = {"max_retries": 0}
        if self.address.is_bucket:
            prefix = self.address.prefix or None
            return S3Store(self.address.host, prefix=prefix, client_options=client, retry_config=retry)
        return HTTPStore(str(self.address), client_options=client, retry_config=retry)


def _endpoint() -> str:
    return (
        os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or os.environ.get("AWS_ENDPOINT")
        or ""
    )


def _some(starts: Iterator[int], count: int) -> Iterator[int]:
    for _ in range(count):
        if (start := next(starts, None)) is not None:
            yield start


def _after(done: int, parts: Any) -> Iterator[Any]:
    """The bytes of `parts` behind the first `done`."""
    for part in parts:
        view = memoryview(part)
        if done < len(view):
            yield view[done:]
        done = max(0, done - len(view))
