"""The result of `make_atlas`: where the atlas is, how large, and what it says of each head in numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alens.result import Result, plain


@dataclass(frozen=True, kw_only=True)
class AtlasEntry:
    """One head of an atlas."""

    layer: int
    head: int
    page: str
    """The path of its page inside the atlas."""
    says_nothing: bool
    kl: float
    """KL(model, lens) on held-out rows, in nats."""
    gain: float
    """The KL of the mean output minus that of the lens: what the lens knows."""
    write_strength: float | None
    """The root of the mean square of what the head adds to a logit, over rows and the vocabulary; None where it is not known."""
    effect: float | None
    """The same of what the model loses without the head; None where it was not measured."""


@dataclass(frozen=True, kw_only=True)
class Atlas(Result):
    """An atlas that was written."""

    folder: Path
    rows: int
    """Rows of the cache that each head was read with."""
    judged_rows: int
    """Held-out rows that figures are of."""
    files: int
    bytes: int
    no_write: str | None
    """Why what heads write is left out; None where it is there."""
    no_roles: str | None
    """Why role scores are left out; None where they are there."""
    heads: Sequence[AtlasEntry]

    def headline(self) -> str:
        return f"{len(self.heads)} heads in {self.folder}, {self.files:,} files, {self.bytes:,} bytes"

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "heads": plain(self.heads)}
