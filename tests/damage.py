"""Damages files as a disk or a person could: changes bits, or takes bytes away at the end."""

from pathlib import Path


def flipped(content: bytes, place: int, mask: int = 1) -> bytes:
    """`content` with the bits of `mask` changed in the byte at `place`, which counts from the end where it is negative."""
    changed = bytearray(content)
    changed[place] ^= mask
    return bytes(changed)


def flip(path: Path, place: int | None = None, mask: int = 4) -> None:
    """Change bits of one byte of a file: the byte in the middle, unless `place` names another."""
    content = path.read_bytes()
    path.write_bytes(flipped(content, len(content) // 2 if place is None else place, mask))


def cut(path: Path, num_bytes: int = 1) -> None:
    """Take the last bytes of a file away."""
    path.write_bytes(path.read_bytes()[:-num_bytes])
