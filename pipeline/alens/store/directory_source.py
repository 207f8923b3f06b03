"""A directory as the place that a stage copies from: a shared file system that is slow to read."""

from collections.abc import Iterator
from pathlib import Path

from alens.errors import DamageError, RunError
from alens.remote.objects import BLOCK_BYTES, MOST_BYTES, Bytes


class DirectorySource:
    """The files of a directory, as `alens.remote.objects.Readable`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def url(self, path: str) -> str:
        return str(self.root / path)

    def names(self, folder: str = "") -> Iterator[tuple[str, int]] | None:
        return (
            (path.relative_to(self.root).as_posix(), path.stat().st_size)
            for path in (self.root / folder).rglob("*")
            if path.is_file()
        )

    def size(self, path: str) -> int | None:
        try:
            return (self.root / path).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, path: str, most_bytes: int = MOST_BYTES) -> bytes:
        size = self.size(path) or 0
        if size > most_bytes:
            raise DamageError(f"{self.url(path)} has {size:,} bytes, more than the {most_bytes:,} allowed")
        return (self.root / path).read_bytes()

    def blocks(self, path: str, size: int) -> Iterator[Bytes]:
        try:
            with (self.root / path).open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    yield block
        except FileNotFoundError:
            raise
        except OSError as error:
            raise RunError(f"cannot read {self.url(path)}: {error.strerror}") from None
