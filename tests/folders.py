"""The contents of a folder, to compare it with another one, or with what it was before."""

import hashlib
from pathlib import Path


def file_names(folder: Path) -> list[str]:
    """The path of each file, relative to the folder, in order."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def entry_names(folder: Path) -> list[str]:
    """The name of each file and folder in the folder itself, in order."""
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of each file."""
    return {name: (folder / name).read_bytes() for name in file_names(folder)}


def states(folder: Path) -> dict[str, tuple[int, int]]:
    """The inode and the time of the last change of each file. They differ once a file is written anew."""
    status = {name: (folder / name).stat() for name in file_names(folder)}
    return {name: (file.st_ino, file.st_mtime_ns) for name, file in status.items()}


def array_hashes(store: Path) -> dict[str, str]:
    """A hash of each file of numbers of a cache and of its metadata. Its documents also hold versions and times."""
    names = [name for name in file_names(store) if name.startswith("arrays.zarr/") or name == "tokens.npy"]
    return {name: hashlib.sha256((store / name).read_bytes()).hexdigest() for name in names}
